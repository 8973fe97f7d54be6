"""Incremental measuring for ``vidnoise evaluate``: earlier results are kept, new ones are written at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from vidnoise.evaluation.tables import Results


@dataclass(frozen=True, slots=True)
class Measuring:
    """Measures what is missing from the results, and writes them after each method and case."""

    results: Results
    output: Path | None
    console: Console
    again: bool
    """Whether to measure again what the results already contain."""
    cases: str
    """Key of a method's results by case: ``sigmas`` or ``scenarios``."""
    order: Callable[[str], float]
    """Sort key of the cases."""
    needed: str = "psnr"
    """Metric without which earlier results are measured again."""

    def measure(self, label: str, facts: dict[str, Any], case: str, run: Callable[[], dict[str, Any]]) -> None:
        """Measure one method in one case, unless the results contain it.

        Args:
            label: Name of the method.
            facts: Facts about the method, whatever the case.
            case: Name of the case.
            run: Runs the measurement.
        """
        methods = self.results["methods"]
        earlier = methods.get(label, {})
        if earlier.get("weights", facts.get("weights")) != facts.get("weights"):
            self.console.print(f"{label}: the weights have changed since; what was measured is dropped")
            earlier = {}
        done = dict(earlier.get(self.cases, {}))
        what = f"{label}, {self.cases.removesuffix('s')} {case}"
        if case in done and not self.again and self.needed in done[case]["mean"]:
            self.console.print(f"{what}: kept from {self.output}")
            return
        done[case] = run()
        methods[label] = earlier | facts | {self.cases: {c: done[c] for c in sorted(done, key=self.order)}}
        self.write()
        mean, strength = done[case]["mean"], done[case].get("strength")
        self.console.print(
            f"{what}: {mean['psnr']:.2f} dB"
            + (f", VMAF {mean['vmaf']:.1f}" if "vmaf" in mean else "")
            + (f", {mean['ms_per_megapixel']:.0f} ms a megapixel" if "ms_per_megapixel" in mean else "")
            + ("" if strength is None else f", strength {strength if isinstance(strength, str) else f'{strength:g}'}")
            + (" (at the edge of those tried)" if done[case].get("strength_at_edge") else "")
        )

    def measure_peer(self, label: str, case: str, run: Callable[[], dict[str, Any]], *, may_fail: bool) -> bool:
        """Measure a filter in one case; returns whether it succeeded.

        Args:
            label: Name of the filter.
            case: Name of the case.
            run: Runs the measurement.
            may_fail: Whether to report errors rather than raise them.
        """
        from vidnoise.errors import UsageError

        try:
            self.measure(label, {}, case, run)
        except UsageError as ex:
            if not may_fail:
                raise
            self.console.print(f"{label} is left out: {ex}")
            return False
        return True

    def write(self) -> None:
        """Write all results so far, so that stopping a long comparison loses only the current case."""
        from vidnoise.evaluation.results import write_results

        if self.output:
            write_results(self.output, self.results)
