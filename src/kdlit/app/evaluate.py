"""The command that measures a finished run: `scripts/evaluate.py`, `kdlit-evaluate`."""

from omegaconf import DictConfig

from kdlit.app.cli import run_command


def main() -> None:
    """Compose the configuration from the command line and evaluate what it names."""
    run_command(_evaluate, "evaluate")


def _evaluate(config: DictConfig) -> None:
    # Not before it is needed: --help is quick.
    from kdlit.app.evaluating import evaluate

    evaluate(config)
