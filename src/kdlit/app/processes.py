"""Processes that were started from outside, by torchrun or SLURM's srun, on one machine or more.

All are given the same command line. Were each to compose it by itself, each would have a run
directory of its own, named by its own clock. So the first composes, and tells the others.
"""

import os
from datetime import timedelta

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from kdlit.errors import ConfigError

_PATIENCE = timedelta(minutes=10)
# In Lightning's order: torchrun may be used within a SLURM job.
_STARTERS: dict[str, type[ClusterEnvironment]] = {
    "torchrun": TorchElasticEnvironment,
    "SLURM": SLURMEnvironment,
}


class StartedProcess:
    """One of several processes that were started from outside.

    They talk through torch's store at the address and port at which Lightning will look for it
    later: torchrun holds it, and elsewhere the first process does, as long as this object lives.

    Args:
        environment: what Lightning knows of them.
    """

    def __init__(self, environment: ClusterEnvironment) -> None:
        self._environment = environment
        self.rank, self.count = environment.global_rank(), environment.world_size()
        self._store: TCPStore | None = None
        # A process that torchrun has started again must not hear what its predecessor was told.
        self._key = f"kdlit/config/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"

    def tell(self, text: str) -> None:
        """Tell the others a text, in the first process; later calls do nothing."""
        if self._store is None:
            self._store = self._open()
            self._store.set(self._key, text)

    def hear(self) -> str:
        """Return what the first process tells.

        Raises:
            ConfigError: if it says nothing for ten minutes.
        """
        try:
            self._store = self._open()
            return bytes(self._store.get(self._key)).decode()
        except DistError as error:
            raise ConfigError(
                f"process {self.rank} of {self.count} heard nothing of the first one at "
                f"{self._environment.main_address}:{self._environment.main_port}: it has failed, "
                f"or it cannot be reached there ({error})"
            ) from error

    def _open(self) -> TCPStore:
        held = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return TCPStore(
            self._environment.main_address,
            self._environment.main_port,
            self.count,
            is_master=self.rank == 0 and not held,
            timeout=_PATIENCE,
            wait_for_workers=False,
            # Lightning's process group finds the same store, in this process, under this port.
            multi_tenant=True,
        )


def started() -> StartedProcess | None:
    """Return what there is to know of this process if it is one of several, else None.

    Raises:
        ConfigError: if SLURM's variables contradict each other.
    """
    _, environment = _starter()
    if environment is None or environment.world_size() < 2:
        return None
    return StartedProcess(environment)


def check_processes(trainer: pl.Trainer) -> None:
    """Check that a trainer means as many processes as there are.

    Raises:
        ConfigError: if Lightning would wait for processes that nobody starts, or train apart what
            belongs together.
    """
    name, environment = _starter()
    meant = trainer.num_devices * trainer.num_nodes
    if environment is None:
        if trainer.num_nodes > 1:
            raise ConfigError(
                f"trainer.num_nodes={trainer.num_nodes}: start the command on each machine with "
                "torchrun, or with srun; see docs/scaling.md"
            )
        return
    count = environment.world_size()
    if count != meant:
        raise ConfigError(
            f"{name} has started {count} process{'es' if count > 1 else ''}, and "
            f"trainer.num_nodes={trainer.num_nodes} with trainer.devices={trainer.num_devices} "
            f"means {meant}: set trainer=ddp, trainer.num_nodes to the machines and "
            "trainer.devices to the processes on each, or start as many"
        )


def _starter() -> tuple[str, ClusterEnvironment | None]:
    for name, kind in _STARTERS.items():
        if kind.detect():
            try:
                return name, kind()
            except RuntimeError as error:
                raise ConfigError(f"{name}: {error}") from error
    return "", None
