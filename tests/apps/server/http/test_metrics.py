"""Paths that anyone can make up do not become numbers of their own."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from littune.apps.server.http.metrics import Metrics


def test_the_numbers_can_be_read() -> None:
    metrics = Metrics(frozenset(("/classify",)))
    for path in ("/classify", "/x", "/y"):
        began = metrics.begin()
        metrics.end(path, "200", began)
    metrics.batch("image", 3)
    metrics.classifier(True)
    families = {family.name: family for family in text_string_to_metric_families(metrics.text().decode())}
    requests = {tuple(sample.labels.items()): sample.value for sample in families["littune_requests"].samples}
    assert requests[(("path", "other"), ("status", "200"))] == 2
    assert families["littune_requests_under_way"].samples[0].value == 0
    assert {"littune_batch_size", "littune_request_seconds", "littune_classifiers"} <= families.keys()


@pytest.mark.parametrize("path", ["/classify", "/elsewhere"])
def test_metrics_of_two_servers_are_apart(path: str) -> None:
    one, other = Metrics(frozenset()), Metrics(frozenset())
    one.end(path, "200", one.begin())
    assert b"200" not in other.text()
