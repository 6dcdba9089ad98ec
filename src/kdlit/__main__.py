"""`python -m kdlit fit --config job.yaml`: the module with Lightning's own command line."""

import sys

from kdlit.distillation import DistillationModule
from kdlit.errors import KdlitError

SAVED = "kdlit-job.yaml"
"""What the command line was told, all defaults included, in the logger's directory."""


def main() -> None:
    """Run LightningCLI on :class:`kdlit.DistillationModule`; what kdlit refuses takes one line.

    Its YAML names student, teacher, label, features, optimizer and scheduler by `class_path` and
    `init_args`, and any datamodule.
    """
    try:
        import jsonargparse  # noqa: F401
        from lightning.pytorch.cli import LightningCLI
    except ImportError as error:
        sys.exit(f'kdlit: {error}: it comes with pip install "kdlit[cli]"')
    try:
        LightningCLI(
            DistillationModule,
            # The optimizer is the module's.
            auto_configure_optimizers=False,
            # Without a logger it is written where the command runs, once for each command: under a
            # name that is no file of the user's.
            save_config_kwargs={"config_filename": SAVED, "overwrite": True},
        )
    except KdlitError as error:
        sys.exit(f"kdlit: {error}")


if __name__ == "__main__":
    main()
