"""The deployed host, and the journal of its service when a test about it fails."""

import pytest
import testinfra

HOST = "docker://whisper-xeon-molecule"


@pytest.fixture(scope="session")
def host():
    """The host of the scenario."""
    return testinfra.get_host(HOST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the journal of the unit to the report of a failed test."""
    report = yield
    if report.failed and "host" in getattr(item, "funcargs", {}):
        journal = item.funcargs["host"].run("journalctl --unit whisper-xeon.service --lines 50 --no-pager")
        report.sections.append(("journal of whisper-xeon.service", journal.stdout))
    return report
