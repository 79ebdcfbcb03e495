"""Results as JUnit XML, which every CI shows."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from sipfw.prove.verdict import FAILED, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sipfw.prove.verdict import Proof, Result


def junit_text(proofs: Sequence[Proof]) -> str:
    """Return one suite for each backend."""
    suites = [
        suite(each.backend, each.seconds, (_case(result) for result in each.results))
        for each in proofs
    ]
    return document(suites)


def document(suites: Iterable[str]) -> str:
    """Return a whole document of suites."""
    return "\n".join(['<?xml version="1.0"?>', "<testsuites>", *suites, "</testsuites>", ""])


def suite(name: str, seconds: float, cases: Iterable[str]) -> str:
    """Return one suite of cases."""
    found = list(cases)
    failures = sum("<failure" in each for each in found)
    skipped = sum("<skipped" in each for each in found)
    head = (
        f'<testsuite name={quoteattr(name)} tests="{len(found)}" failures="{failures}" '
        f'skipped="{skipped}" time="{seconds:.1f}">'
    )
    return "\n".join([head, *found, "</testsuite>"])


def case(name: str, group: str, *, failure: str = "", skipped: str = "") -> str:
    """Return one case; texts are quoted."""
    head = f"<testcase classname={quoteattr(group)} name={quoteattr(name)}"
    if failure:
        return f"{head}><failure message={quoteattr(failure)}/></testcase>"
    if skipped:
        return f"{head}><skipped message={quoteattr(skipped)}/></testcase>"
    return f"{head}/>"


def _case(result: Result) -> str:
    group = "attack" if result.attack else "good"
    if result.verdict is Verdict.SKIPPED:
        return case(result.label, group, skipped=result.why or "not played")
    if result.verdict in FAILED:
        said = f"{result.verdict}: {result.got} of {result.tried} {result.why}".strip()
        return case(result.label, group, failure=said)
    return case(result.label, group)
