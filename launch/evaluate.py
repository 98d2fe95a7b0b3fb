"""Evaluates: python launch/evaluate.py --task=retrieval --model=my-encoder --data=beir:my/scifact

A model is a work directory of launch/train.py, an exported directory, one of sentence-transformers
(BERT or RoBERTa), any other of Hugging Face's format, or a hub id; a run (--run=run.trec) is what
any system found, in TREC's format. Prints a table and writes PREFIX.json, and what else the task
has to show. The tasks, and the flags that each of them reads:

  retrieval      --data --split --run --baseline --bm25 --english --vectors --trec --k (+) (*)
  open_qa        --data --split --run --baseline --bm25 --english --vectors --trec (+) (*)
  sts            --data --split --baseline --pooling --passage_prefix (*)
  sections       --data --split --baseline --pooling --passage_prefix (*)
  packages       --data --split --pooling --passage_prefix (*)
  cls_attention  --data --limit --max_length

(+) and --pooling --query_prefix --passage_prefix: what the files of a model do not say.
(*) and --bad_share --heldout_share --split_seed: how the data are read.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags  # noqa: E402

from condenser_jax import command  # noqa: E402

TASK = flags.DEFINE_string("task", "", "what to measure, e.g. retrieval")
MODEL = flags.DEFINE_multi_string("model", [], "what to evaluate; repeat for several")
OUTPUT = flags.DEFINE_string("output", "", "PREFIX of the files; default: the task's name")
READ = {
    "data": flags.DEFINE_string(
        "data",
        "",
        "retrieval, open_qa: a collection, e.g. beir:my/scifact (docs/collections.md); sts, "
        "sections: a folder with SPLIT.tsv, .csv or .jsonl, such a file, or docstrings:; packages: "
        "docstrings:, or docstrings:jax,numpy; cls_attention: a source, e.g. text:my.txt (default: "
        "what a run held out, docstrings: for other models)",
    ),
    "split": flags.DEFINE_string("split", "test", "which part of the data"),
    "run": flags.DEFINE_multi_string(
        "run", [], "a TREC run, of launch/search.py or any other system; repeat for several"
    ),
    "bm25": flags.DEFINE_boolean("bm25", True, "a row for BM25"),
    "english": flags.DEFINE_boolean(
        "english", False, "BM25 with English stop words and stems (pip install PyStemmer)"
    ),
    "k": flags.DEFINE_integer("k", 1000, "passages of each query"),
    "vectors": flags.DEFINE_string(
        "vectors", "", "directory that keeps the vectors of passages, to go on after a kill"
    ),
    "trec": flags.DEFINE_boolean("trec", False, "also write PREFIX.MODEL.trec: what was found"),
    "baseline": flags.DEFINE_string(
        "baseline", "", "PREFIX.per_query.json of an earlier evaluation to compare with"
    ),
    "limit": flags.DEFINE_integer("limit", 512, "how many texts"),
    "max_length": flags.DEFINE_integer("max_length", 128, "tokens of a text, longer ones are cut"),
}
USAGE = command.usage_flags()
READ |= USAGE
READING = command.reading_flags()


def check_idle() -> None:
    """Raises UserError for a flag that the task reads, and that is ignored beside the others."""
    if Path(READ["data"].value).expanduser().is_file():
        command.refuse_idle(f"{READ['data'].value} is a file and has no splits", READ["split"])
    if not READ["bm25"].value:
        command.refuse_idle("--bm25=false leaves BM25 out", READ["english"])
    if READ["run"].value and not MODEL.value:
        command.refuse_idle("there is no --model", *USAGE.values(), READ["vectors"])
        if not READ["bm25"].value:
            command.refuse_idle("all runs are written, and nothing else is searched", READ["trec"])


def main() -> None:
    """Measures the models, prints the table and writes the files."""
    from condenser_jax.environment import enable_compilation_cache
    from condenser_jax.errors import choose
    from condenser_jax.tasks.contract import Options
    from condenser_jax.tasks.table import TASKS, check_flags, check_prefix, write_files

    enable_compilation_cache()
    task = TASKS[choose("task", TASK.value, TASKS)]
    check_flags(TASK.value, [name for name, flag in (READ | READING).items() if flag.present])
    check_idle()
    prefix = Path(OUTPUT.value or TASK.value).expanduser()
    check_prefix(prefix)
    options = {name: flag.value for name, flag in READ.items() if name in task.flags}
    reading = command.reading_options(READING)
    report = task.report(Options(models=tuple(MODEL.value), reading=reading, **options))
    print(report.table)
    written = write_files(report, prefix)
    print(f"\nwritten: {', '.join(map(str, written))}")


if __name__ == "__main__":
    command.run(main)
