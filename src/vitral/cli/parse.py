"""Words of the command line to a dataclass."""


def parse(kind: type, command: str, words: list[str]):  # type: ignore[no-untyped-def]
    """`words` as an instance of the dataclass `kind`, whose docstring is the command's help."""
    import tyro

    return tyro.cli(kind, prog=f"vitral {command}", args=words, config=(tyro.conf.OmitArgPrefixes,))
