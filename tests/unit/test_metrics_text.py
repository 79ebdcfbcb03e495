"""Both texts of the metrics, read back by parsers that are not ours."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metrics_sample import APPLIED, sample
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

from sipfw import __version__
from sipfw.monitor.metrics.families import RuleSeries, metrics_of
from sipfw.monitor.metrics.scrape import NOTHING_APPLIED, Scrape
from sipfw.monitor.metrics.text import Format, Metric, MetricType, Sample, as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

READERS: dict[Format, Callable[[str], Iterable[Any]]] = {
    Format.OPENMETRICS: read_openmetrics,
    Format.PROMETHEUS: read_prometheus,
}
formats = pytest.mark.parametrize("form", list(Format))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    return sample(tmp_path_factory.mktemp("metrics"))


def read(text: str, form: Format) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return all samples; none may stand twice."""
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for metric in READERS[form](text):
        for item in metric.samples:
            key = (item.name, frozenset(item.labels.items()))
            assert key not in samples, key
            assert item.timestamp is None
            samples[key] = item.value
    return samples


def value(text: str, name: str, form: Format = Format.PROMETHEUS, **labels: str) -> float | None:
    return read(text, form).get((name, frozenset(labels.items())))


def test_both_formats_say_the_same(found: Scrape) -> None:
    new, old = (read(as_text(metrics_of(found), form), form) for form in Format)
    assert new == old
    assert len(new) > 300


@formats
def test_the_figures_are_those_of_the_look(found: Scrape, form: Format) -> None:
    text = as_text(metrics_of(found), form)
    assert found.seen is not None
    rule = next(item for item in found.seen.report.rules if item.id == "scanner.options-udp")
    for family, name in zip(rule.counts, ("ipv4", "ipv6"), strict=True):
        count = rule.counts[family]
        labels = {
            "family": name,
            "layer": "scanner-block",
            "chain": "SIP_SCANNER_BLOCK",
            "rule": "scanner.options-udp",
            "action": "drop",
        }
        assert count is not None
        assert value(text, "sipfw_rule_packets_total", form, **labels) == count.packets > 0
        assert value(text, "sipfw_rule_bytes_total", form, **labels) == count.bytes
    dropped = sum(item.packets for item in found.seen.report.rules if item.action == "drop")
    layers = read(text, form)
    assert dropped == sum(
        n for (name, _), n in layers.items() if name == "sipfw_layer_dropped_packets_total"
    )
    assert value(text, "sipfw_build_info", form, version=__version__) == 1
    assert value(text, "sipfw_up", form) == 1
    assert value(text, "sipfw_health_state", form) == 2
    # Connection tracking is 85 % full, and one setting is not the policy's.
    assert value(text, "sipfw_health_problems", form) == 2
    assert value(text, "sipfw_drift", form) == 0
    assert value(text, "sipfw_generation", form) == 3
    assert value(text, "sipfw_last_apply_timestamp_seconds", form) == APPLIED
    assert value(text, "sipfw_change_unfinished", form) == 1
    assert value(text, "sipfw_confirm_pending_seconds", form) == 41.5
    assert value(text, "sipfw_scrape_duration_seconds", form) == 0.25
    assert value(text, "sipfw_conntrack_entries", form) == 850
    assert value(text, "sipfw_conntrack_limit", form) == 1000
    assert value(text, "sipfw_set_entries", form, set="banned4", kind="dynamic") == 7
    assert value(text, "sipfw_set_size", form, set="banned4", kind="dynamic") == 65536
    agrees = [n for (name, _), n in layers.items() if name == "sipfw_sysctl_agrees"]
    assert sorted(set(agrees)) == [0, 1]


def test_which_rules_have_series(found: Scrape) -> None:
    def actions(rules: RuleSeries) -> set[str]:
        text = as_text(metrics_of(found, rules), Format.PROMETHEUS)
        return {
            dict(labels)["action"]
            for name, labels in read(text, Format.PROMETHEUS)
            if name == "sipfw_rule_packets_total"
        }

    assert actions(RuleSeries.NONE) == set()
    assert actions(RuleSeries.DECIDING) == {"drop", "pass"}
    assert actions(RuleSeries.ALL) > {"drop", "pass", "go"}


@formats
def test_a_failed_look_still_has_what_an_alert_needs(form: Format) -> None:
    text = as_text(metrics_of(Scrape(None, NOTHING_APPLIED)), form)
    assert value(text, "sipfw_up", form) == 0
    assert value(text, "sipfw_health_state", form) == 2
    assert value(text, "sipfw_health_problems", form) == 1
    assert value(text, "sipfw_change_unfinished", form) == 0
    assert "sipfw_rule" not in text


def test_the_end_and_the_names_are_those_of_each_format(found: Scrape) -> None:
    new, old = (as_text(metrics_of(found), form) for form in Format)
    assert new.endswith("\n# EOF\n")
    assert "# TYPE sipfw_build info\n" in new
    assert "# TYPE sipfw_rule_packets counter\n# UNIT sipfw_rule_packets packets\n" in new
    # node_exporter's parser knows neither the end mark, nor units, nor the type info.
    assert "# EOF" not in old
    assert "# UNIT" not in old
    assert "# TYPE sipfw_build_info gauge\n" in old
    assert "# TYPE sipfw_rule_packets_total counter\n" in old


def test_openmetrics_names_end_with_their_unit(found: Scrape) -> None:
    for metric in metrics_of(found, RuleSeries.ALL):
        assert not metric.unit or metric.name.endswith(f"_{metric.unit}")
        assert not metric.name.endswith(("_total", "_info", "_created", "_count", "_bucket"))


HOSTILE = {
    'quote " in it': 'quote " in it',
    "back\\slash": "back\\slash",
    "line\nbreak": "line\nbreak",
    'x"} 1\nsipfw_up 0\n#': 'x"} 1\nsipfw_up 0\n#',
    "\\n": "\\n",
    "carriage\rreturn": "carriage\ufffdreturn",
    "\x1b[31mred\x00\x85\u2028": "\ufffd[31mred\ufffd\ufffd\ufffd",
    "half\ud800": "half\ufffd",
    "Zürich": "Zürich",
}


@formats
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_in_their_label(found: Scrape, form: Format, text: str) -> None:
    assert found.seen is not None
    report = found.seen.report
    rules = tuple(replace(rule, id=text) for rule in report.rules[:1])
    sets = tuple(replace(item, name=text) for item in report.sets[:1])
    seen = replace(
        found.seen,
        report=replace(report, rules=rules, sets=sets),
        subject=replace(found.seen.subject, source=text),
    )
    hostile = as_text(metrics_of(replace(found, seen=seen), RuleSeries.ALL), form)
    samples = read(hostile, form)
    named = {name: dict(labels) for name, labels in samples}
    assert named["sipfw_rule_packets_total"]["rule"] == HOSTILE[text]
    assert named["sipfw_set_entries"]["set"] == HOSTILE[text]
    assert named["sipfw_firewall_info"]["source"] == HOSTILE[text]
    assert samples["sipfw_up", frozenset()] == 1
    hostile.encode("utf-8")


@given(st.text())
def test_any_text_is_one_line(text: str) -> None:
    metric = Metric("m", MetricType.GAUGE, "help", (Sample({"a": text}, 5),))
    for form in Format:
        written = as_text([metric], form)
        assert len([line for line in written.splitlines() if not line.startswith("#")]) == 1
        assert [*read(written, form).values()] == [5]
