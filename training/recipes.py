"""Recipes: functions that return every number of a run. There are no other knobs."""

from collections.abc import Callable

from training.config import Canaries, Loop, Mix, Model, Rate, Recipe, Source, Stage, Take

__all__ = ["RECIPES", "amber_7b", "micro", "staged", "tiny", "tiny_360"]

DOCS, STDLIB, CODECS, PLAYS = "python-docs", "python-stdlib", "python-codecs", "shakespeare"
BUILT_IN = tuple(Source(name) for name in (DOCS, STDLIB, CODECS, PLAYS))


def _rows(source: str, rows: int, row_tokens: int = 129) -> Take:
    """A budget of so many rows."""
    return Take(source, tokens=rows * row_tokens)


def tiny() -> Recipe:
    """36 checkpoints of a Llama of about two million parameters: two minutes on two cores."""
    takes = (_rows(DOCS, 340), _rows(STDLIB, 2940), _rows(CODECS, 770), _rows(PLAYS, 2286))
    levels = ((128, 1), (64, 1), (32, 1), (16, 2), (8, 1), (4, 2), (2, 2), (1, 2))
    # The five most repeated fall just before a checkpoint of 3:36:4, where their effect is freshest. None
    # comes in the first third: the model is still too young to remember a row after one chunk of it.
    one_chunk = (15, 19, 23, 27, 31, 12, 13, 14, 16, 17, 18, 20)
    return Recipe(
        mix=Mix(
            name="tiny",
            seed=360,
            sources=BUILT_IN,
            stages=(Stage("all", 36, takes),),
            rows=176,
            vocabulary=2048,
            held_out_chunks=4,
            canaries=Canaries(levels=levels, one_chunk=one_chunk, never=32),
        ),
        model=Model(hidden=192, layers=3, heads=6, intermediate=512, vocabulary=2048),
        loop=Loop(batch=4, rates=(Rate(peak=5e-3, last=5e-4, warm_up=100),), compiled=True),
    )


def tiny_360() -> Recipe:
    """360 checkpoints of the same Llama, so that `--ckpts 0:360:36` means on two cores what it means for Amber."""
    takes = (_rows(DOCS, 600), _rows(STDLIB, 12_000), _rows(CODECS, 770), _rows(PLAYS, 9_670))
    levels = ((48, 2), (32, 2), (16, 2), (8, 2), (4, 2), (2, 2), (1, 2))
    # The most repeated fall just before a checkpoint of 35:360:36, where their effect is freshest.
    one_chunk = (143, 215, 179, 251, 107, 287, 160, 170, 190, 200, 230, 240, 260, 270)
    return Recipe(
        mix=Mix(
            name="tiny-360",
            seed=360,
            sources=BUILT_IN,
            stages=(Stage("all", 360, takes),),
            rows=64,
            vocabulary=2048,
            longest=1 << 20,
            held_out_chunks=16,
            canaries=Canaries(levels, one_chunk, never=64, even=((128, 1), (64, 2))),
        ),
        model=Model(hidden=192, layers=3, heads=6, intermediate=512, vocabulary=2048),
        loop=Loop(batch=4, rates=(Rate(peak=5e-3, last=5e-4, warm_up=200),), compiled=True),
    )


def amber_7b() -> Recipe:
    """Amber as LLM360's paper has it: Tables 2 and 3, section 4.1.1. The text is yours to bring.

    1259.13 B tokens in 360 chunks of 1,706,976 rows (the release's own numbers): 763 steps a chunk, the last
    of them of 96 rows. Between the passes of a step FSDP2 keeps whole gradients, 27 GB a GPU: GPUs of 80 GB.
    """
    billions = {
        "arxiv": 30.00,
        "book": 28.86,
        "c4": 197.67,
        "refined-web": 665.01,
        "starcoder": 291.92,
        "stackexchange": 21.75,
        "wikipedia": 23.90,
    }
    return Recipe(
        mix=Mix(
            name="amber-7b",
            seed=11111,
            sources=tuple(Source(name, files=f"text/{name}/**/*.jsonl") for name in billions),
            stages=(Stage("all", 360, tuple(Take(name, weight) for name, weight in billions.items())),),
            rows=1_706_976,
            row_tokens=2049,
            tokenizer="tokenizer",
            longest=1 << 40,
            held_out_chunks=0,
            held_out_fraction=0.0,
        ),
        model=Model(
            4096, layers=32, heads=32, intermediate=11008, vocabulary=32000, positions=2048, seed=11111
        ),
        loop=Loop(
            batch=2240,
            rates=(Rate(peak=3e-4, last=3e-5, warm_up=2000),),
            micro_batch=10,
            compute_dtype="bfloat16",
            compiled=True,
            recompute=True,
        ),
    )


def staged() -> Recipe:
    """CrystalCoder's three stages in small (LLM360, section 4.2): a mixture and a rate of its own for each.

    First a half of the plays; then the other half with two epochs of code; then mostly a part of the code.
    The rates are linear, and the first stage ends long before its own would (phase 1 of the released configuration).
    """
    stages = (
        Stage("first half", 4, (Take(PLAYS, 1.0, part=(0.0, 0.5)),)),
        Stage(
            "second half and code",
            6,
            # The few documents of this part of the code have 107 rows: twice that is two epochs.
            (Take(PLAYS, 1.0, part=(0.5, 1.0)), Take(STDLIB, tokens=215 * 129, part=(0.0, 0.02), epochs=2)),
        ),
        Stage("third mix", 2, (Take(STDLIB, 0.9, part=(0.02, 1.0)), Take(PLAYS, 0.1))),
    )
    return Recipe(
        mix=Mix(
            name="staged",
            seed=3,
            sources=(Source(STDLIB), Source(PLAYS)),
            stages=stages,
            rows=96,
            vocabulary=1024,
        ),
        model=Model(hidden=96, layers=2, heads=4, intermediate=256, vocabulary=1024),
        loop=Loop(
            batch=8,
            rates=(
                Rate(peak=4e-3, last=4e-5, warm_up=10, shape="linear", steps=180),
                Rate(peak=3e-3, last=5e-5, warm_up=10, shape="linear"),
                Rate(peak=7e-4, last=7e-5, warm_up=2, shape="linear"),
            ),
        ),
    )


def micro() -> Recipe:
    """Six checkpoints in a few seconds, for tests: the same code, too small to learn anything."""
    takes = (_rows(DOCS, 48), _rows(STDLIB, 120), _rows(PLAYS, 120))
    return Recipe(
        mix=Mix(
            name="micro",
            seed=6,
            sources=(Source(DOCS), Source(STDLIB), Source(PLAYS)),
            stages=(Stage("all", 6, takes),),
            rows=48,
            vocabulary=512,
            held_out_fraction=0.4,
            canaries=Canaries(levels=((4, 1), (1, 1)), one_chunk=(2, 3), never=4, duplicates=((3, 2),)),
        ),
        model=Model(hidden=64, layers=2, heads=2, intermediate=128, vocabulary=512, seed=6),
        loop=Loop(batch=8, rates=(Rate(peak=3e-3, last=3e-4, warm_up=4),), threads=1),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "tiny": tiny,
    "tiny-360": tiny_360,
    "amber-7b": amber_7b,
    "staged": staged,
    "micro": micro,
}
