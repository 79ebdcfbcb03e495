"""The two texts that Prometheus reads, written by its own library: OpenMetrics 1.0 and 0.0.4.

They differ in more than the end mark: the older one knows no `info`, names a counter in its TYPE
line with `_total`, and is the only one that node_exporter's textfile collector takes.

The library comes with the extra `metrics`, and only those who ask for metrics pay for its import.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from sipfw.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.core import Metric as Written

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


class MetricType(StrEnum):
    """The type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    INFO = "info"


# OpenMetrics adds these to the name of the metric for the name of its samples.
_SUFFIX = {MetricType.COUNTER: "_total", MetricType.GAUGE: "", MetricType.INFO: "_info"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure."""

    labels: Mapping[str, str]
    value: Value


@dataclass(frozen=True, slots=True)
class Metric:
    """Figures of one name. `name` ends with the unit, where there is one, and has no suffix."""

    name: str
    kind: MetricType
    help: str
    samples: tuple[Sample, ...]
    unit: str = ""

    @property
    def sample_name(self) -> str:
        """Return the name that queries use."""
        return self.name + _SUFFIX[self.kind]


class _Look:
    """The metrics of one look, as a collector of the library: one without a sample is left out."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Written]:
        """Yield them as the library's own."""
        return (_written(metric) for metric in self._metrics if metric.samples)


def require_library() -> None:
    """Raise BackendError when the library is not installed."""
    try:
        import prometheus_client  # noqa: F401, PLC0415 - an extra, imported where it serves
    except ImportError as error:
        raise BackendError(
            "sipfw metrics needs prometheus-client: pip install 'sipfw[metrics]'"
        ) from error


def as_text(metrics: Iterable[Metric], form: Format) -> str:
    """Return the metrics in one of the formats. Raises BackendError without the library."""
    require_library()
    from prometheus_client import exposition  # noqa: PLC0415 - see above
    from prometheus_client.openmetrics import exposition as newer  # noqa: PLC0415

    write = newer.generate_latest if form is Format.OPENMETRICS else exposition.generate_latest
    return write(_Look(metrics)).decode("utf-8")


def _written(metric: Metric) -> Written:
    from prometheus_client.core import Metric as Written  # noqa: PLC0415 - see above

    written = Written(metric.name, metric.help, metric.kind.value, metric.unit)
    for sample in metric.samples:
        labels = {name: _printable(value) for name, value in sample.labels.items()}
        written.add_sample(metric.sample_name, labels, sample.value)
    return written


def _printable(value: str) -> str:
    """Replace what cannot be printed, but for the line breaks that the formats escape.

    Readers disagree about a bare carriage return, which the library writes as it is, and it fails
    over half of a surrogate pair, which is no UTF-8.
    """
    return "".join(c if c == "\n" or c.isprintable() else "\ufffd" for c in value)
