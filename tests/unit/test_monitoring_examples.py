"""The alerts, the dashboard and the units of examples/monitoring fit what sipfw really reports."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner
from metrics_sample import sample
from prometheus_client.parser import text_string_to_metric_families

from sipfw.cli import cli
from sipfw.monitor.metrics.address import DEFAULT
from sipfw.monitor.metrics.families import RuleSeries, metrics_of
from sipfw.monitor.metrics.text import Format, as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parents[2] / "examples" / "monitoring"
RULES = FOLDER / "prometheus-rules.yaml"
DASHBOARD = FOLDER / "grafana-dashboard.json"
UNITS = sorted([*FOLDER.glob("*.service"), *FOLDER.glob("*.timer")])

# What Prometheus itself and node_exporter add.
FOREIGN: dict[str, list[dict[str, str]]] = {
    "up": [{"job": "sipfw"}],
    "node_textfile_mtime_seconds": [{"file": "/var/lib/prometheus/node-exporter/sipfw.prom"}],
}
# Labels that the scrape adds to every series.
TARGET = {"instance", "job"}
FUNCTIONS = {
    *("absent", "changes", "delta", "increase", "label_values", "rate", "sum", "time", "topk"),
    *("and", "by", "on", "or", "unless", "without"),
}
SELECTOR = re.compile(r"([a-z_][a-z0-9_]*)\s*\{([^}]*)\}")
MATCHER = re.compile(r'\s*([a-z_]+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
GROUPING = re.compile(r"\b(?:by|on|without)\s*\(([^)]*)\)")
DURATION = re.compile(r"\[(?:\d+[smhd]|\$__rate_interval|\$__range)\]")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """Return the labels of every series, as a default scrape gives them."""
    found = sample(tmp_path_factory.mktemp("monitoring"))
    text = as_text(metrics_of(found, RuleSeries.DECIDING), Format.PROMETHEUS)
    series: dict[str, list[dict[str, str]]] = dict(FOREIGN)
    for metric in text_string_to_metric_families(text):
        for item in metric.samples:
            series.setdefault(item.name, []).append(item.labels)
    return series


def alerts() -> list[dict[str, Any]]:
    data = yaml.safe_load(RULES.read_text())
    assert list(data) == ["groups"]
    return [rule for group in data["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for item in dashboard["annotations"]["list"]:
        yield item["name"], item["expr"]
    for item in dashboard["templating"]["list"]:
        if item["type"] == "query":
            yield item["name"], item["query"]["query"]


def names(expr: str) -> set[str]:
    """Return the metrics of a PromQL expression."""
    bare = DURATION.sub("", re.sub(r"\{[^}]*\}", "", expr))
    bare = GROUPING.sub("", bare).replace(", instance)", ")")
    words = set(re.findall(r"[A-Za-z_$][\w$]*", bare))
    assert "$" not in "".join(words), expr
    return words - FUNCTIONS


def selects(matchers: str, series: dict[str, str]) -> bool:
    for label, operator, value in MATCHER.findall(matchers):
        if value == "$instance":
            continue
        text, found = value.replace("\\\\", "\\"), series.get(label, "")
        same = re.fullmatch(text, found) is not None if "~" in operator else text == found
        if same is operator.startswith("!"):
            return False
    return True


def test_there_is_something_to_look_at() -> None:
    assert len(alerts()) >= 10
    assert len(list(expressions())) > 25
    assert names('sum by (rule) (rate(a_total{b="c"}[5m])) > 1 and d_e == 2') == {"a_total", "d_e"}


@pytest.mark.parametrize(("title", "expr"), list(expressions()))
def test_every_expression_asks_for_what_is_reported(
    title: str, expr: str, reported: dict[str, list[dict[str, str]]]
) -> None:
    used = names(expr)
    assert used or expr.startswith("time()"), title
    assert used - set(reported) == set(), f"{title} asks for figures that sipfw does not report"
    for metric, matchers in SELECTOR.findall(expr):
        pairs = MATCHER.findall(matchers)
        assert MATCHER.sub("", matchers).strip() == "", f"{title}: {matchers}"
        labels = {label for series in reported[metric] for label in series}
        assert {label for label, _, _ in pairs} <= labels | TARGET, title
        fits = [series for series in reported[metric] if selects(matchers, series)]
        assert fits, f"{title}: no series of {metric} has {matchers}"
    for group in GROUPING.findall(expr):
        known = {label for metric in used for series in reported[metric] for label in series}
        assert {word.strip() for word in group.split(",")} <= known | TARGET, title


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_what_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Sipfw[A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "action"}
    text = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\{\{\s*([$.\w]+)", text)) <= {"$labels.instance", "$value"} | {
        f"$labels.{label}" for label in ("set", "rule")
    }
    for command in re.findall(r"\bsipfw ([a-z-]+)", rule["annotations"]["action"]):
        assert cli.get_command(None, command) is not None, command  # type: ignore[arg-type] # it asks for no context


def test_alerts_have_names_of_their_own() -> None:
    found = [rule["alert"] for rule in alerts()]
    assert len(found) == len(set(found))


def test_the_dashboard_can_be_imported_anywhere() -> None:
    data = json.loads(DASHBOARD.read_text())
    text = DASHBOARD.read_text()
    assert data["schemaVersion"] >= 36
    assert "id" not in data
    # No data source of the host it was made on: everything asks the variable.
    sources = re.findall(r'"uid": "([^"]+)"', text)
    assert set(sources) == {"${datasource}", data["uid"]}
    variables = {item["name"]: item for item in data["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == (
        "datasource",
        "prometheus",
    )
    ids = [panel["id"] for panel in data["panels"]]
    assert len(ids) == len(set(ids))


def test_the_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # systemd minds the case
    parser.read_string(path.read_text())
    return parser


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_the_units_call_what_there_is(path: Path) -> None:
    parser = unit(path)
    assert parser["Unit"]["Description"]
    if path.suffix == ".timer":
        assert path.with_suffix(".service").exists()
        return
    program, command, *words = shlex.split(parser["Service"]["ExecStart"])
    assert (program, command) == ("/usr/local/bin/sipfw", "metrics")
    assert_known(command, words)


def assert_known(command: str, words: list[str]) -> None:
    """Have click read the words as far as the help page, which it prints instead of running."""
    ran = CliRunner().invoke(cli, [command, *words, "--help"])
    assert ran.exit_code == 0, ran.output
    options = set(re.findall(r"--[a-z-]+", ran.output))
    assert {word for word in words if word.startswith("--")} <= options


def test_the_scrape_asks_where_the_exporter_listens() -> None:
    data = yaml.safe_load((FOLDER / "prometheus-scrape.yaml").read_text())
    (job,) = data["scrape_configs"]
    assert job["job_name"] == FOREIGN["up"][0]["job"]
    assert job["static_configs"] == [{"targets": [DEFAULT]}]
    assert DEFAULT in unit(FOLDER / "sipfw-exporter.service")["Service"]["ExecStart"]


@pytest.mark.parametrize("name", ["nrpe-sipfw.cfg", "zabbix-sipfw.conf"])
def test_other_monitoring_systems_call_what_there_is(name: str) -> None:
    lines = (FOLDER / name).read_text().splitlines()
    (line,) = [item for item in lines if item and not item.startswith("#")]
    words = line[line.index("/usr/bin/sudo") :].split()
    assert words[:3] == ["/usr/bin/sudo", "/usr/local/bin/sipfw", "verify"]
    assert_known("verify", words[3:])
    (allowed,) = [item for item in lines if "NOPASSWD: " in item]
    assert allowed.partition("NOPASSWD: ")[2].split() == words[1:]


promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@promtool
def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Series of one host, and the alert that they must raise at 30 minutes; values are PromQL's.
HOST = 'instance="h", job="sipfw"'
FIRING = {
    "SipfwDown": {f"sipfw_up{{{HOST}}}": "0x40"},
    "SipfwAbsent": {"other": "1x40"},
    "SipfwExporterDown": {f"up{{{HOST}}}": "0x40"},
    "SipfwStale": {
        'node_textfile_mtime_seconds{instance="h", file="/var/lib/x/sipfw.prom"}': "0x40"
    },
    "SipfwDrift": {f"sipfw_drift{{{HOST}}}": "2x40"},
    "SipfwDegraded": {
        f"sipfw_health_state{{{HOST}}}": "2x40",
        f"sipfw_up{{{HOST}}}": "1x40",
    },
    "SipfwConntrackNearlyFull": {
        f"sipfw_conntrack_entries{{{HOST}}}": "81x40",
        f"sipfw_conntrack_limit{{{HOST}}}": "100x40",
    },
    "SipfwSetNearlyFull": {
        f'sipfw_set_entries{{{HOST}, set="banned4", kind="dynamic"}}': "90x40",
        f'sipfw_set_size{{{HOST}, set="banned4", kind="dynamic"}}': "100x40",
    },
    "SipfwTrustedPeerLimited": {
        f'sipfw_rule_packets_total{{{HOST}, rule="trusted.tier-large", action="drop"}}': "0+120x40"
    },
    "SipfwChangeUnfinished": {f"sipfw_change_unfinished{{{HOST}}}": "1x40"},
    "SipfwBanSurge": {f'sipfw_set_entries{{{HOST}, set="banned4", kind="dynamic"}}': "0+20x40"},
    "SipfwFirewallChanged": {f"sipfw_generation{{{HOST}}}": "1x28 2x10"},
}
# What is fine, or another alert's matter.
QUIET = {
    "SipfwDown": {f"sipfw_up{{{HOST}}}": "1x40"},
    "SipfwAbsent": {f"sipfw_up{{{HOST}}}": "0x40"},
    "SipfwStale": {'node_textfile_mtime_seconds{file="/var/lib/x/apt.prom"}': "0x40"},
    "SipfwDegraded": {
        f"sipfw_health_state{{{HOST}}}": "2x40",
        f"sipfw_up{{{HOST}}}": "0x40",
    },
    "SipfwConntrackNearlyFull": {
        f"sipfw_conntrack_entries{{{HOST}}}": "80x40",
        f"sipfw_conntrack_limit{{{HOST}}}": "100x40",
    },
    "SipfwSetNearlyFull": {
        f'sipfw_set_entries{{{HOST}, set="trusted4", kind="static"}}': "90x40",
        f'sipfw_set_size{{{HOST}, set="trusted4", kind="static"}}': "100x40",
    },
    "SipfwTrustedPeerLimited": {
        f'sipfw_rule_packets_total{{{HOST}, rule="banned.drop", action="drop"}}': "0+9999x40"
    },
    "SipfwBanSurge": {f'sipfw_set_entries{{{HOST}, set="banned4", kind="dynamic"}}': "0+10x40"},
    "SipfwFirewallChanged": {f"sipfw_generation{{{HOST}}}": "2x40"},
}


def test_every_alert_has_a_case() -> None:
    assert set(FIRING) == {rule["alert"] for rule in alerts()}


@promtool
@pytest.mark.parametrize(
    ("alert", "series", "fires"),
    [(name, FIRING[name], True) for name in FIRING]
    + [(name, QUIET[name], False) for name in QUIET],
)
def test_promtool_sees_alerts_fire(
    alert: str, series: dict[str, str], fires: bool, tmp_path: Path
) -> None:
    case = tmp_path / "case.yaml"
    given = [{"series": name, "values": values} for name, values in series.items()]
    # promtool compares whole alerts; counting them needs no copy of every text.
    count = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
    expected = [{"labels": "{}", "value": 1}] if fires else []
    test = {
        "interval": "1m",
        "input_series": given,
        "promql_expr_test": [{"expr": count, "eval_time": "31m", "exp_samples": expected}],
    }
    content = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}
    case.write_text(yaml.safe_dump(content))
    done = subprocess.run(
        ["promtool", "test", "rules", str(case)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
