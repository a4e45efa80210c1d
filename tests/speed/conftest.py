"""Speed figures are printed as a table of images per second."""


def pytest_terminal_summary(terminalreporter):
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    for bench in session.benchmarks if session else ():
        if bench.extra_info:
            figures = ", ".join(f"{name} {value:,}" for name, value in bench.extra_info.items())
            terminalreporter.write_line(f"{bench.name}: {figures}")
