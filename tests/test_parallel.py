"""Two processes train the student of one, to rounding: under DDP, and with the student sharded."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from conftest import trainer
from kdlit import DistillationModule, Tokens, TruthLabels
from kdlit.data import EpochSampler
from kdlit.errors import ConfigError
from kdlit.objectives import CRD, Hint
from kdlit.teachers import CachedTeacher, EMATeacher, EnsembleTeacher, FrozenTeacher
from objectives.every import CASES
from objectives.test_runs import Images
from objectives.test_runs import module_of as every_module
from test_positions import batches, tagger

SAMPLES, BATCH, EPOCHS = 64, 16, 2


class Data(pl.LightningDataModule):
    """The same samples in each step, however many processes share them."""

    def train_dataloader(self) -> DataLoader:
        generator = torch.Generator().manual_seed(1)
        inputs = torch.randn(SAMPLES, 6, generator=generator)
        data = TensorDataset(inputs, inputs[:, :3].argmax(dim=1), torch.arange(SAMPLES))
        share = self.trainer.distributed_sampler_kwargs or {}
        size = BATCH // share.get("num_replicas", 1)
        return DataLoader(data, batch_size=size, sampler=EpochSampler(data, **share))

    val_dataloader = train_dataloader


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))


def sharded(network: nn.Module, mesh) -> None:
    for layer in network:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh["data_parallel"])
    fully_shard(network, mesh=mesh["data_parallel"])


def module_of(**options) -> DistillationModule:
    """Return a module with a projector, and memories that are trained beside it."""
    teacher = FrozenTeacher(network(5), parallelize=options.get("parallelize"))
    student = network(3)
    torch.manual_seed(0)
    return DistillationModule(
        student,
        teacher,
        optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9),
        features={
            "hint": Hint("1", "3", weight=1.0),
            "crd": CRD(SAMPLES, negatives=8, feature_dim=5),
        },
        **options,
    )


def fitted(module: DistillationModule, epochs: int = EPOCHS, ckpt_path=None, **options):
    fit = trainer(max_epochs=epochs, **options)
    pl.seed_everything(0, verbose=False)  # Lightning seeds anew where it starts processes
    fit.fit(module, Data(), ckpt_path=ckpt_path, weights_only=True)
    return fit


class Buckets(pl.Callback):
    """Looks at each step that DDP holds what is trained, and nothing of the teacher."""

    steps = 0

    def on_train_batch_end(self, trainer, module, *_):
        wrapper = trainer.strategy.model  # Lightning takes the wrapper off when the fit ends
        assert isinstance(wrapper, DistributedDataParallel)
        held = {id(tensor) for tensor in (*wrapper.parameters(), *wrapper.buffers())}
        trained = {id(p) for part in (module.student, module.features) for p in part.parameters()}
        theirs = {id(tensor) for tensor in module.teacher.state_dict(keep_vars=True).values()}
        assert trained
        assert trained <= held
        assert theirs
        assert not theirs & held
        self.steps += 1


def two_processes(*arguments: str) -> str:
    here = Path(__file__).resolve()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
         "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(here), *arguments],
        env={**os.environ, "PYTHONPATH": str(here.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout


def same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    two_processes("same", str(folder))
    return folder


@pytest.fixture(scope="module")
def alone() -> dict:
    module = module_of()
    fit = fitted(module)
    return {"state": module.state_dict(), "metrics": dict(fit.callback_metrics)}


@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
def test_two_processes_train_the_student_of_one(results, alone, strategy):
    found = torch.load(results / f"{strategy}.pt", weights_only=True)
    same(found["state"], alone["state"])
    same(found["metrics"], alone["metrics"])


def test_a_sharded_run_goes_on_from_its_checkpoints(results, alone):
    for name in ("from-folder", "from-file"):
        found = torch.load(results / f"{name}.pt", weights_only=True)
        same(found["state"], alone["state"])


def test_the_file_of_a_sharded_run_gives_the_student_in_one_process(results, alone):
    found = DistillationModule.load_from_checkpoint(
        results / "file.ckpt", student=network(0), label=TruthLabels(), weights_only=True
    )
    half = module_of()
    fitted(half, epochs=1)
    same(found.student.state_dict(), half.student.state_dict())


@pytest.mark.slow
def test_every_objective_learns_the_same_sharded_as_under_ddp():
    assert two_processes("every").count("the same") == len(CASES)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ConfigError, match=r"`parallelize` needs a device mesh.*SingleDevice"):
        trainer().fit(module_of(parallelize=sharded), Data())
    whole = FrozenTeacher(network(0))
    spread = FrozenTeacher(network(0), parallelize=sharded)
    assert [EnsembleTeacher([whole, one]).spreads for one in (whole, spread)] == [False, True]
    with pytest.raises(ConfigError, match="cannot be kept"):
        CachedTeacher(spread, "nowhere")


def _train_the_same(folder: Path) -> None:
    def keep(name: str, module: DistillationModule, fit: pl.Trainer) -> None:
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(module, options=whole)
        if fit.is_global_zero:
            found = {"state": state, "metrics": dict(fit.callback_metrics)}
            torch.save(found, folder / f"{name}.pt")

    module, watch = module_of(), Buckets()
    keep("ddp", module, fitted(module, devices=2, strategy="ddp", callbacks=[watch]))
    assert watch.steps == EPOCHS * SAMPLES // BATCH

    def strategy(*, folders: bool = True) -> dict:
        return {"devices": 2, "strategy": ModelParallelStrategy(
            data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=folders
        )}  # fmt: skip

    module = module_of(parallelize=sharded)
    fit = fitted(module, **strategy())
    parts = dict(module.named_parameters())
    assert all(isinstance(part, DTensor) for part in parts.values())
    assert parts["student.0.weight"].to_local().shape == (4, 6), "each process has its half"
    assert all(isinstance(p, DTensor) for p in module.teacher.parameters())
    keep("sharded", module, fit)

    for kind in ("folder", "file"):
        path = folder / ("folder" if kind == "folder" else "file.ckpt")
        half = fitted(
            module_of(parallelize=sharded), epochs=1, **strategy(folders=kind == "folder")
        )
        half.save_checkpoint(path)
        assert path.is_dir() == (kind == "folder")
        module = module_of(parallelize=sharded)
        fit = fitted(module, ckpt_path=path, **strategy(folders=kind == "folder"))
        keep(f"from-{kind}", module, fit)

    for options, problem in (
        ({}, "shards what it is told to"),
        ({"parallelize": sharded, "teacher": EMATeacher()}, "averages whole weights"),
    ):
        module = DistillationModule(network(3), **{"teacher": network(5), **options})
        with pytest.raises(ConfigError, match=problem):
            fitted(module, **strategy())
    _train_where_no_position_counts()


def _train_where_no_position_counts() -> None:
    """In one process a step of the other goes on; where they must ask together it is refused."""
    first, second, nothing, *_ = batches()

    def fit(data: list[dict], strategy, teacher=None, **options) -> dict:
        given = {"optimizer": partial(torch.optim.SGD, lr=0.05), "positions": Tokens(), **options}
        module = DistillationModule(tagger(), teacher or tagger(8, seed=1), **given)
        loader = DataLoader(data, batch_size=None)
        fit = trainer(devices=2, strategy=strategy, use_distributed_sampler=False)
        fit.fit(module, loader, loader)
        return get_model_state_dict(module, options=StateDictOptions(full_state_dict=True))

    mine = [first, nothing if os.environ["RANK"] == "0" else second]
    found = fit(mine, ModelParallelStrategy(2, 1), parallelize=sharded)
    same(found, fit(mine, "ddp"))
    for options in (
        {"teacher": FrozenTeacher(tagger(8, seed=1), parallelize=sharded)},
        {"features": {"hint": Hint("2", "2")}},
    ):
        with pytest.raises(ConfigError, match="no position of a batch counts, and where teacher"):
            fit([first, nothing], ModelParallelStrategy(2, 1), parallelize=sharded, **options)


def _train_every_objective() -> None:
    """Buffers may differ: DDP gives all processes the statistics of the first one's batches."""
    for name, case in CASES.items():
        states = []
        for strategy in ("ddp", ModelParallelStrategy(2, 1)):
            module = every_module(case)
            module._make_optimizer = partial(torch.optim.SGD, lr=0.01)
            if strategy != "ddp":
                module._parallelize = lambda net, mesh: fully_shard(net, mesh=mesh["data_parallel"])
            trainer(devices=2, strategy=strategy, limit_val_batches=0).fit(
                module, Images(case.target)
            )
            whole = StateDictOptions(full_state_dict=True)
            state = get_model_state_dict(module, options=whole)
            states.append({n: p for n, p in state.items() if n in dict(module.named_parameters())})
        assert states[0], name
        same(states[1], states[0])
        if distributed.get_rank() == 0:
            print(name, "the same", flush=True)


if __name__ == "__main__":
    _train_every_objective() if sys.argv[1] == "every" else _train_the_same(Path(sys.argv[2]))
    # One process must not leave while the other still talks to it.
    distributed.barrier()
    distributed.destroy_process_group()
