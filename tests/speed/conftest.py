"""Speed figures are printed as a table of images per second."""


def pytest_terminal_summary(terminalreporter):
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    for bench in session.benchmarks if session else ():
        if bench.extra_info:
            shown = {n: value if isinstance(value, str) else f"{value:,}" for n, value in bench.extra_info.items()}
            figures = ", ".join(f"{name} {value}" for name, value in shown.items())
            terminalreporter.write_line(f"{bench.name}: {figures}")
