"""`cosmos-triton`: what an operator runs."""


def main() -> None:
    raise SystemExit("not yet")
