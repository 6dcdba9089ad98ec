"""Compares a student on the truth with students that a wide teacher has taught, over seeds."""

import argparse
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from movielens import MovieLens
from recommend import Factors, RankingDistillation, Table, fit, item_item
from torch import Tensor, nn

from kdlit import DistillationModule, HardLabels, KdlitError, SoftLabels, SupervisedModule
from kdlit.files import write_atomically, write_json

ADAM = partial(torch.optim.Adam, lr=1e-2)
TRUTH, SOFT = "8 dimensions, truth", "8 dimensions, soft labels"
MARKS = ("<!-- results -->", "<!-- end of results -->")


def grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """Return every combination of the values."""
    return [dict(zip(values, one, strict=True)) for one in product(*values.values())]


def compare(data: MovieLens, seeds: Sequence[int], epochs: int) -> dict[str, Any]:
    """Choose each setting by the first seed's validation NDCG@10, then test one network a seed."""
    start, rows, gains = time.perf_counter(), {}, {}

    def test(name: str, networks: Sequence[nn.Module], numbers: int, **about: Any) -> None:
        hits, gains[name] = map(
            torch.stack, zip(*(data.rank(one, "test") for one in networks), strict=True)
        )
        ndcg = gains[name].mean(dim=1).tolist()
        measured = {"hit_rate": hits.mean(dim=1).tolist(), "ndcg": ndcg}
        rows[name] = {"numbers": numbers, **measured, **about}

    def choose(
        name: str, settings: list[dict[str, Any]], make: Callable[..., Any]
    ) -> dict[int, nn.Module]:
        def train(seed: int, setting: dict[str, Any]) -> tuple[float, Any]:
            pl.seed_everything(seed, verbose=False)
            rest = dict(setting)
            data.half_life = rest.pop("half_life")
            module = make(seed, **rest)
            score = fit(module, data, epochs)
            print(f"{name}, {setting}, seed {seed}: validation NDCG@10 {score:.4f}", flush=True)
            return score, module.trained

        began = time.perf_counter()
        tried = [train(seeds[0], setting) for setting in settings]
        best = max(range(len(tried)), key=lambda number: tried[number][0])
        later = [train(seed, settings[best]) for seed in seeds[1:]]
        runs = [tried[best], *later]
        count = sum(p.numel() for p in runs[0][1].parameters())
        fits = len(tried) + len(later)
        test(
            name,
            [network for _, network in runs],
            count,
            validation=[score for score, _ in runs],
            setting=settings[best],
            search=[s | {"validation": v} for s, (v, _) in zip(settings, tried, strict=True)],
            seconds_per_fit=(time.perf_counter() - began) / fits,
        )
        return dict(zip(seeds, (network for _, network in runs), strict=True))

    def score(scores: Tensor) -> float:
        return float(data.rank(Table(scores), "val")[1].mean())

    popular = data.seen.float().sum(dim=0).expand(data.users, -1)
    test("popularity", [Table(popular)], data.items, validation=[score(popular)])

    settings = grid(half_life=(5.0, 10.0, 20.0, 50.0, 1000.0), ridge=(200.0, 500.0, 1000.0))
    values = [score(item_item(data, **setting)) for setting in settings]
    setting = settings[values.index(max(values))]
    scores = item_item(data, **setting)
    # They become logits by the scale under which the validation items are most likely.
    unseen = scores.masked_fill(data.seen, -torch.inf)
    likely = {k: -float(F.cross_entropy(k * unseen, data.val[:, 1])) for k in (10, 20, 40, 80, 160)}
    scale = max(likely, key=likely.__getitem__)
    teacher = Table(scale * scores)
    about = {"validation": [max(values)], "setting": setting | {"scale": scale}}
    test("item-item (teacher)", [teacher], data.items**2, **about)

    def supervised(dimensions: int, seed: int, dropout: float = 0.0) -> SupervisedModule:
        return SupervisedModule(Factors(data, dimensions, dropout), ADAM)

    def distilled(
        label: type, source: Callable[[int], nn.Module], seed: int, **setting: Any
    ) -> Any:
        return DistillationModule(Factors(data, 8), source(seed), label(**setting), ADAM)

    choose(TRUTH, grid(half_life=(5.0, 10.0, 30.0, 1000.0)), partial(supervised, 8))
    same = {"half_life": [rows[TRUTH]["setting"]["half_life"]]}
    settings = grid(**same, dropout=(0.3, 0.6))
    wide = choose("64 dimensions, truth", settings, partial(supervised, 64))
    soft = grid(**same, temperature=(1.0, 2.0, 4.0), alpha=(0.5, 1.0))
    choose(SOFT, soft, partial(distilled, SoftLabels, lambda seed: teacher))
    make = partial(distilled, HardLabels, lambda seed: teacher)
    choose("8 dimensions, hard labels", grid(**same, alpha=(0.5, 1.0)), make)
    make = partial(distilled, RankingDistillation, lambda seed: teacher)
    choose("8 dimensions, ranking distillation", grid(**same, alpha=(0.1, 0.5)), make)
    make = partial(distilled, SoftLabels, wide.__getitem__)
    choose("8 dimensions, soft labels of 64 dimensions", soft, make)

    gain = gains[SOFT].mean(dim=0) - gains[TRUTH].mean(dim=0)
    half = 1.96 * float(gain.std()) / math.sqrt(len(gain))
    return {
        "rows": rows,
        "gain": {"mean": float(gain.mean()), "half_width": half, "users": len(gain)},
        "seeds": list(seeds),
        "epochs": epochs,
        "seconds": time.perf_counter() - start,
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads()},
    }


def table(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""

    def cell(values: Sequence[float]) -> str:
        spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
        return f"{mean(values):.4f}{spread}"

    lines = [
        "| | numbers | HR@10 | NDCG@10 | validation NDCG@10 | chosen |",
        "|---|" + "--:|" * 4 + "---|",
    ]
    for name, row in found["rows"].items():
        cells = [cell(row[key]) for key in ("hit_rate", "ndcg", "validation")]
        chosen = ", ".join(f"{key} {value:g}" for key, value in row.get("setting", {}).items())
        lines.append(f"| {name} | {row['numbers']:,} | {' | '.join(cells)} | {chosen} |")
    gain, machine = found["gain"], found["machine"]
    return "\n".join(lines) + (
        f"\n\nSeeds {', '.join(map(str, found['seeds']))}; {found['epochs']} epochs; "
        f"{found['seconds'] / 60:.0f} minutes in all on {machine['cores']} CPU cores "
        f"({machine['threads']} thread). Soft labels over truth, NDCG@10, by users: "
        f"{gain['mean']:+.4f} ± {gain['half_width']:.4f} (95 % interval, {gain['users']} users)."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison, write `results.json` and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of u.data(.gz)")
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("results.json"))
    parser.add_argument("--readme", type=Path, help="a page to put the table in, between its marks")
    asked = parser.parse_args(arguments)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        data = MovieLens(asked.data)
        found = compare(data, [int(seed) for seed in asked.seeds.split(",")], asked.epochs)
    except KdlitError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    write_json(asked.out, found)
    print(table(found))
    if asked.readme:
        before, rest = asked.readme.read_text(encoding="utf-8").split(MARKS[0])
        text = f"{before}{MARKS[0]}\n\n{table(found)}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}"
        write_atomically(asked.readme, lambda path: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
