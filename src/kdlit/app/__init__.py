"""From a configuration to a run: the only part of kdlit that imports Hydra."""
