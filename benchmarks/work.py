"""The files that a benchmark prepares once and all its repetitions read."""

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Work:
    """Where things lie in the folder for work.

    Attributes:
        folder: the folder, which need not exist.
    """

    folder: Path

    @property
    def mnist(self) -> Path:
        """The root of torchvision's data set, whose archives are extracted here."""
        return self.folder / "data"

    @property
    def teachers(self) -> Path:
        """A cache folder of kdlit's that holds trained teachers and nothing else."""
        return self.folder / "teachers"

    @property
    def teacher(self) -> Path:
        """The teacher's weights by the names of kdlit's network."""
        return self.folder / "teacher.safetensors"

    @property
    def plain_teacher(self) -> Path:
        """The same weights by the names of the network as the article prints it."""
        return self.folder / "plain-teacher.pt"

    @property
    def prepared(self) -> Path:
        """What has been prepared, as JSON."""
        return self.folder / "prepared.json"

    @property
    def validation(self) -> Path:
        """The validation images' positions in the original training set."""
        return self.folder / "validation.pt"

    def images(self, seed: int) -> Path:
        """Return the file of the training images' positions in the original training set."""
        return self.folder / f"images-{seed}.pt"

    def cache(self, name: str, seed: int, images: int | None) -> Path:
        """Return the cache folder of a run of kdlit's.

        All seeds share one, unless they take different images.
        """
        return self.folder / "caches" / (name if images is None else f"{name}-{seed}")
