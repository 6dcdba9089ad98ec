"""The command that writes a finished run's student for use elsewhere: `scripts/export.py`."""

from omegaconf import DictConfig

from kdlit.app.cli import run_command


def main() -> None:
    """Compose the configuration from the command line and export what it names."""
    run_command(_export, "export")


def _export(config: DictConfig) -> None:
    # Not before it is needed: --help is quick.
    from kdlit.app.exporting import export

    export(config)
