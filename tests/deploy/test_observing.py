"""Prometheus' configuration, its alerts and Grafana's dashboard, against metrics that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from serve.gateway.exchange import Exchange
from serve.gateway.routes import ROUTES
from serve.keys.key import Key
from serve.metrics.figures import Figures

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/llmkit.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
NAME = re.compile(r"\b(?:llmkit_|vllm:|process_)[a-z_]+")
SUFFIXES = re.compile("_(total|bucket|sum|count|created)$")

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool: scripts/system-packages.sh"
)


def dashboard_queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def alert_queries() -> list[str]:
    return [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]


def figures() -> Figures:
    """With one request in every family."""
    figures = Figures(keys=1, models=1)
    exchange = Exchange(
        route="/v1/completions",
        model="base",
        key=Key("k", "n"),
        rejected="a",
        queued=1.0,
        prompt_tokens=1,
        completion_tokens=2,
    )
    exchange.first_token = exchange.last_token = exchange.started
    figures.count(exchange, 200, exchange.started)
    return figures


def samples() -> Iterator[tuple[str, set[str]]]:
    for family in figures().registry.collect():
        for sample in family.samples:
            yield sample.name, set(sample.labels)


def vllms_families() -> set[str]:
    """Read from its source: importing it takes ten seconds."""
    files = [distribution(name) for name in _installed_vllm()]
    loggers = Path(str(files[0].locate_file("vllm/v1/metrics/loggers.py")))
    return set(re.findall(r'name="(vllm:[a-z_]+)"', loggers.read_text()))


def _installed_vllm() -> list[str]:
    from importlib.metadata import packages_distributions

    return packages_distributions()["vllm"]


@pytest.mark.parametrize("query", dashboard_queries() + alert_queries())
def test_every_query_asks_for_metrics_that_exist(query: str) -> None:
    ours = {name for name, _ in samples()}
    for name in NAME.findall(query):
        if name.startswith("llmkit_"):
            assert name in ours
        elif name.startswith("vllm:"):
            assert SUFFIXES.sub("", name) in vllms_families()
        else:
            assert name == "process_resident_memory_bytes"


@pytest.mark.parametrize("query", dashboard_queries() + alert_queries())
def test_every_query_uses_labels_that_its_metric_has(query: str) -> None:
    labels = dict(samples())
    for name, matchers in re.findall(r"(llmkit_[a-z_]+)\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers)) <= labels[name]
    grouped = re.findall(r"by \(([^)]*)\) \(rate\((llmkit_[a-z_]+)", query)
    for by, name in grouped:
        assert set(by.split(", ")) <= labels[name] | {"instance"}


def test_the_dashboard_shows_every_family_of_ours() -> None:
    asked = {SUFFIXES.sub("", name) for q in dashboard_queries() for name in NAME.findall(q)}
    families = {family.name for family in figures().registry.collect()}
    assert families - asked == {"llmkit_access_log_lines_dropped"}  # an alert of its own


def test_no_two_panels_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_and_variables_use_the_data_source_that_is_provisioned() -> None:
    provisioned = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )
    [source] = provisioned["datasources"]
    named = re.findall(r'"uid": "(\w+)"', json.dumps(DASHBOARD))
    assert set(named) == {source["uid"], "llmkit"}


def test_routes_that_an_alert_names_are_routes() -> None:
    for query in alert_queries():
        for names in re.findall(r'route!?=~?"([^"]*)"', query):
            assert set(names.split("|")) <= set(ROUTES)


@promtool
def test_prometheus_takes_its_configuration_and_its_alerts() -> None:
    checked = run("promtool", "check", "config", "--syntax-only", "prometheus/prometheus.yml")
    assert checked.returncode == 0, checked.stderr
    checked = run("promtool", "check", "rules", "prometheus/alerts.yml")
    assert checked.returncode == 0, checked.stderr


@promtool
def test_every_query_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"q{number}", "expr": re.sub(r"\$__rate_interval", "1m", query)}
        for number, query in enumerate(dashboard_queries())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = run("promtool", "check", "rules", str(path))
    assert checked.returncode == 0, checked.stderr


@promtool
def test_our_exposition_is_as_prometheus_wants_it() -> None:
    exposition = generate_latest(figures().registry)
    # The client library's own _created families are not ours to name.
    kept = b"\n".join(line for line in exposition.splitlines() if b"_created" not in line)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=kept + b"\n", capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr.decode()


REQUESTS = 'llmkit_requests_total{instance="a",route="/v1/completions",status="%s"}'
WELL = {
    REQUESTS % "200": "0+100x30",
    REQUESTS % "500": "0+0x30",
    'up{job="llmkit",instance="a"}': "1x30",
    'vllm:kv_cache_usage_perc{instance="a"}': "0.5x30",
    'llmkit_requests_waiting{instance="a"}': "5x30",
    'llmkit_access_log_lines_dropped_total{instance="a"}': "7x30",
}
"""Series of a server that works, each minute's values for half an hour."""
ILL = {
    "ServerDown": ('up{job="llmkit",instance="a"}', "0x30"),
    "ServerErrors": (REQUESTS % "500", "0+5x30"),
    "RequestsWait": ('llmkit_requests_waiting{instance="a"}', "20x30"),
    "KvCacheFull": ('vllm:kv_cache_usage_perc{instance="a"}', "0.99x30"),
    "LogLinesDropped": ('llmkit_access_log_lines_dropped_total{instance="a"}', "7+1x30"),
}
"""What makes each alert fire."""


@promtool
def test_each_alert_fires_for_its_own_reason_and_no_other_does(tmp_path: Path) -> None:
    alerts = {rule["alert"]: rule for group in ALERTS["groups"] for rule in group["rules"]}
    assert set(ILL) == set(alerts)
    cases = [("nothing", WELL)] + [(name, WELL | dict([change])) for name, change in ILL.items()]
    tests: dict[str, Any] = {
        "rule_files": [str(DEPLOY / "prometheus/alerts.yml")],
        "tests": [
            {
                "name": case,
                "interval": "1m",
                "input_series": [{"series": name, "values": v} for name, v in series.items()],
                "promql_expr_test": [
                    {
                        "eval_time": "25m",
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "exp_samples": [
                            {"labels": f'{{alertname="{case}"}}', "value": 1}
                            for _ in range(case != "nothing")
                        ],
                    }
                ],
            }
            for case, series in cases
        ],
    }
    said = {"summary": "a answers 4.762% of requests with a 5xx."}
    fires = [{"exp_labels": {"severity": "page", "instance": "a"}, "exp_annotations": said}]
    [errors] = [test for test in tests["tests"] if test["name"] == "ServerErrors"]
    errors["alert_rule_test"] = [
        {"eval_time": "25m", "alertname": "ServerErrors", "exp_alerts": fires}
    ]
    path = tmp_path / "tests.yml"
    path.write_text(yaml.safe_dump(tests))
    checked = run("promtool", "test", "rules", str(path))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=DEPLOY, capture_output=True, text=True, check=False)
