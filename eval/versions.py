"""The software that answers and pictures depend on, for the settings of a run."""

from importlib.metadata import version

from mllm.console import project_version


def model_versions() -> dict[str, str]:
    """Of what computes a model's output."""
    return {
        "unitok-mllm": project_version(),
        **{name: version(name) for name in ("torch", "transformers")},
    }
