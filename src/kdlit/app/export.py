"""The command that writes a finished run's student for use elsewhere: `scripts/export.py`."""

import hydra
from omegaconf import DictConfig

from kdlit.app.cli import CONFIG_MODULE, run_reporting_errors

CONFIG_NAME = "export"


def main() -> None:
    """Compose the configuration from the command line and export what it names."""
    run_reporting_errors(_compose_and_export, CONFIG_NAME)


def _compose_and_export() -> None:
    failures: list[Exception] = []

    @hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name=CONFIG_NAME)
    def command(config: DictConfig) -> None:
        # Not before it is needed: --help is quick.
        from kdlit.app.exporting import export

        try:
            export(config)
        except Exception as error:  # Hydra would print its own account of it
            failures.append(error)

    command()
    if failures:
        raise failures[0]
