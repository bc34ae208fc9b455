"""The wheel holds configurations and notebooks too, which lie beside the packages in a checkout."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NOTEBOOKS = ("*.ipynb", "docs/tutorials/*.ipynb")


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc]
    """Adds them to a wheel, but not to an editable install, which reads the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Map files of the checkout to places in the packages.

        Args:
            version: "standard" or "editable".
            build_data: what hatchling builds from; ``force_include`` is added to.
        """
        if version != "standard":
            return
        root = Path(self.root)
        build_data["force_include"][str(root / "configs")] = "spikingssm/configs"
        for path in (path for pattern in NOTEBOOKS for path in sorted(root.glob(pattern))):
            build_data["force_include"][str(path)] = f"sdn/notebooks/{path.name}"
