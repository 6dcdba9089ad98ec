"""`python -m kdlit fit --config job.yaml`: the module with Lightning's own command line."""

import sys

from kdlit.distillation import DistillationModule
from kdlit.errors import KdlitError


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
            save_config_kwargs={"overwrite": True},
        )
    except KdlitError as error:
        sys.exit(f"kdlit: {error}")


if __name__ == "__main__":
    main()
