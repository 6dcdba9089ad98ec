"""A folder of trained teachers, each found by exactly what it was made from."""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import nn

from kdlit.errors import ConfigError, TeacherError
from kdlit.files import (
    fingerprint,
    read_sealed_json,
    remove_unfinished,
    room_in,
    state_fingerprint,
    write_sealed_json,
)
from kdlit.weights import load_weights, save_weights

log = logging.getLogger("kdlit")


@dataclass(frozen=True)
class StoredTeacher:
    """Where a teacher lies and what is known of it.

    Attributes:
        weights: the safetensors file.
        card: recipe, metrics, and the fingerprint of the weights.
        trained_now: whether this process trained it.
    """

    weights: Path
    card: dict[str, Any]
    trained_now: bool


class TeacherStore:
    """Teachers by recipe: `<name>-<fingerprint of the recipe>.safetensors` and a JSON card.

    Args:
        folder: where they lie; made when the first teacher is stored.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def _files(self, name: str, recipe: dict[str, Any]) -> tuple[Path, Path]:
        stem = f"{name}-{fingerprint(recipe)}"
        return self.folder / f"{stem}.safetensors", self.folder / f"{stem}.json"

    def has(self, name: str, recipe: dict[str, Any]) -> bool:
        """Return whether there are files of a teacher of this recipe."""
        return all(path.is_file() for path in self._files(name, recipe))

    def check(self) -> None:
        """Make the folder; raise `TeacherError` if nothing could be stored in it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise TeacherError(
                f"a teacher cannot be stored in {self.folder}: {error.strerror}. Set `cache_dir` "
                "to a folder that can be written"
            ) from error

    def get_or_train(
        self,
        name: str,
        recipe: dict[str, Any],
        network: nn.Module,
        train: Callable[[nn.Module], dict[str, Any]],
        *,
        anew: bool = False,
    ) -> StoredTeacher:
        """Load the teacher of a recipe into `network`, training and storing it if there is none.

        Of several processes that ask at once one trains, under a lock that the operating system
        frees when its holder dies; the others wait and load.

        Args:
            name: the start of the file names, for people.
            recipe: everything that the teacher depends on, JSON-like.
            network: a new network of the recipe.
            train: trains the network in place and returns what the card shall say.
            anew: train even if the teacher is there, and replace it.

        Raises:
            TeacherError: if the folder cannot be written.
        """
        weights, card = self._files(name, recipe)
        # Files are replaced whole, so a teacher that is there needs no lock: a folder that can
        # only be read will do.
        known = None if anew else self._load(weights, card, network)
        if known is not None:
            return StoredTeacher(weights, known, trained_now=False)
        self.check()
        with FileLock(weights.with_suffix(".lock")):
            for path in (weights, card):
                remove_unfinished(self.folder, path.name)
            known = None if anew else self._load(weights, card, network)
            if known is not None:
                return StoredTeacher(weights, known, trained_now=False)
            self._check_room(weights, card, network)
            told = train(network)
            content = {
                "recipe": recipe,
                "weights": state_fingerprint(network.state_dict()),
                **told,
            }
            save_weights(weights, network, {"recipe": recipe})
            write_sealed_json(card, content)
        return StoredTeacher(weights, content, trained_now=True)

    def _check_room(self, weights: Path, card: Path, network: nn.Module) -> None:
        """Raise `TeacherError` before a training whose teacher could not be stored."""
        needed = sum(tensor.nbytes for tensor in network.state_dict().values())
        free = room_in(self.folder)
        if free < needed:
            raise TeacherError(
                f"a teacher of {needed / 1e6:.1f} MB cannot be stored in {self.folder}, where "
                f"{free / 1e6:.1f} MB are free: make room, or set `cache_dir` to another folder"
            )
        for path in (weights, card):
            if path.is_dir():
                raise TeacherError(f"a teacher cannot be stored in {path}: there is a folder")

    def _load(self, weights: Path, card: Path, network: nn.Module) -> dict[str, Any] | None:
        """Load a stored teacher; None if there is none, or if it is not what its card says."""
        if not (weights.exists() and card.exists()):
            return None
        untrained = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        try:
            content: dict[str, Any] = read_sealed_json(card)
            load_weights(network, weights)
            if state_fingerprint(network.state_dict()) == content["weights"]:
                return content
        except (ConfigError, ValueError, KeyError, TypeError):
            pass
        log.warning("%s is damaged: its teacher is trained anew", weights)
        network.load_state_dict(untrained)
        return None
