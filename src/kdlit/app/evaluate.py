"""The command that measures a finished run: `scripts/evaluate.py`, `kdlit-evaluate`."""

import hydra
from omegaconf import DictConfig

from kdlit.app.cli import CONFIG_MODULE, run_reporting_errors

CONFIG_NAME = "evaluate"


def main() -> None:
    """Compose the configuration from the command line and evaluate what it names."""
    run_reporting_errors(_compose_and_evaluate, CONFIG_NAME)


def _compose_and_evaluate() -> None:
    failures: list[Exception] = []

    @hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name=CONFIG_NAME)
    def command(config: DictConfig) -> None:
        try:
            # Not before it is needed: --help is quick.
            from kdlit.app.evaluating import evaluate

            evaluate(config)
        except Exception as error:
            # Hydra would print its own account of it.
            failures.append(error)

    command()
    if failures:
        raise failures[0]
