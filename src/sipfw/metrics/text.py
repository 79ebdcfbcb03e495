"""The two texts that Prometheus reads: OpenMetrics 1.0 and its own older format.

They differ in more than the end mark: the older one knows no `info`, names a counter in its TYPE
line with `_total`, and is the only one that node_exporter's textfile collector takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Value: TypeAlias = "int | float"


class Format(StrEnum):
    """A text format; the value is what `--format` calls it."""

    OPENMETRICS = "openmetrics"
    PROMETHEUS = "prometheus"

    @property
    def content_type(self) -> str:
        """Return what HTTP calls it."""
        if self is Format.OPENMETRICS:
            return "application/openmetrics-text; version=1.0.0; charset=utf-8"
        return "text/plain; version=0.0.4; charset=utf-8"


class Kind(StrEnum):
    """The type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    INFO = "info"


# OpenMetrics adds these to the name of the metric for the name of its samples.
_SUFFIX = {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.INFO: "_info"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure."""

    labels: Mapping[str, str]
    value: Value


@dataclass(frozen=True, slots=True)
class Metric:
    """Figures of one name. `name` ends with the unit, where there is one, and has no suffix."""

    name: str
    kind: Kind
    help: str
    samples: tuple[Sample, ...]
    unit: str = ""

    @property
    def sample_name(self) -> str:
        """Return the name that queries use."""
        return self.name + _SUFFIX[self.kind]


def as_text(metrics: Iterable[Metric], form: Format) -> str:
    """Return the metrics in one of the formats; one without a sample is left out."""
    lines = [line for metric in metrics if metric.samples for line in _lines(metric, form)]
    if form is Format.OPENMETRICS:
        lines.append("# EOF")
    return "".join(f"{line}\n" for line in lines)


def _lines(metric: Metric, form: Format) -> Iterator[str]:
    name = metric.sample_name
    if form is Format.OPENMETRICS:
        yield f"# TYPE {metric.name} {metric.kind}"
        if metric.unit:
            yield f"# UNIT {metric.name} {metric.unit}"
        yield f"# HELP {metric.name} {metric.help}"
    else:
        yield f"# HELP {name} {metric.help}"
        yield f"# TYPE {name} {Kind.GAUGE if metric.kind is Kind.INFO else metric.kind}"
    for sample in metric.samples:
        yield f"{name}{_labels(sample.labels)} {sample.value}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}"


def _escaped(value: str) -> str:
    """Escape what the formats say, and replace what else cannot be printed.

    Readers disagree about a bare carriage return, and half of a surrogate pair is no UTF-8.
    """
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return "".join(c if c.isprintable() else "\ufffd" for c in escaped)
