"""Collections as others publish them, in folders: BEIR, MS MARCO, and DPR's Wikipedia."""

from pathlib import Path

from condenser_jax.data.documents import BadRecords
from condenser_jax.retrieval.collection import Collection, CollectionOptions
from condenser_jax.retrieval.own_passages import own_passages
from condenser_jax.retrieval.questions import read_answers, read_questions
from condenser_jax.retrieval.sound import (
    Broken,
    Unique,
    checked_id,
    file_of_split,
    find_file,
    id_field,
    json_object,
    need_file,
    need_path,
    plain_name,
    sound_records,
    table_fields,
    text_field,
)
from condenser_jax.retrieval.stored import describe_file, store, write_table
from condenser_jax.retrieval.texts import SCHEMA, TEXTS, Text, Texts, checked_text
from condenser_jax.retrieval.trec import read_judged

BEIR = "a BEIR folder: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv"
MS_MARCO = "an MS MARCO folder: collection.tsv, queries.SPLIT.tsv, qrels.SPLIT.tsv"
DPR = "a DPR folder: psgs_w100.tsv, and SPLIT.qa.csv, .tsv or .jsonl"
CORPUS = {BEIR: "corpus.jsonl", MS_MARCO: "collection.tsv", DPR: "psgs_w100.tsv"}
QUESTIONS = (".qa.csv", ".qa.tsv", ".qa.jsonl")
IDS = ("_id", "docid", "id")  # BEIR's name, Tevatron's, anybody's


def read_corpus(layout: str, rest: str, options: CollectionOptions) -> Texts:
    """Opens the passages alone of a folder of this layout: one of BEIR, MS_MARCO, DPR."""
    path = need_file(Path(rest).expanduser(), CORPUS[layout], layout)
    return read_texts(path, options.bad_share)


def open_beir(rest: str, split: str, options: CollectionOptions) -> Collection:
    """Opens a BEIR folder; answers.jsonl (_id, answers), where there is one, adds answers."""
    folder = Path(rest).expanduser()
    corpus = read_corpus(BEIR, rest, options)
    queries = read_texts(need_file(folder, "queries.jsonl", BEIR), options.bad_share)
    judgements = file_of_split(folder / "qrels", "", split, (".tsv",))
    qrels, judged = read_judged(judgements, corpus, queries, options.bad_share)
    answered = find_file(folder, "answers.jsonl")
    answers = read_answers(answered, options.bad_share) if answered else {}
    answers = {query: answers[query] for query in judged.ids if query in answers}
    own = own_passages(corpus, judged, qrels)
    return Collection(f"beir:{rest}", split, corpus, judged, qrels, answers, own)


def open_msmarco(rest: str, split: str, options: CollectionOptions) -> Collection:
    """Opens a folder of MS MARCO's passage ranking: tab-separated files without headers."""
    folder = Path(rest).expanduser()
    corpus = read_corpus(MS_MARCO, rest, options)
    judgements = file_of_split(folder, "qrels.", split, (".tsv",))
    queries = read_texts(need_file(folder, f"queries.{split}.tsv", MS_MARCO), options.bad_share)
    qrels, judged = read_judged(judgements, corpus, queries, options.bad_share)
    return Collection(f"msmarco:{rest}", split, corpus, judged, qrels)


def open_dpr(rest: str, split: str, options: CollectionOptions) -> Collection:
    """Opens a folder of DPR's passages and questions: answers, and no judgements."""
    folder = Path(rest).expanduser()
    corpus = read_corpus(DPR, rest, options)
    path = file_of_split(folder, "", split, QUESTIONS)
    questions, answers = read_questions(path, options.bad_share)
    return Collection(f"dpr:{rest}", split, corpus, questions, {}, answers)


def read_texts(path: str | Path, bad_share: float) -> Texts:
    """Reads passages or queries, the first time; afterwards they are mapped from the cache.

    A .jsonl file has objects with `_id` (or `docid`, or `id`), `text` and perhaps `title`; a .tsv
    file has id and text between tabs, or, under DPR's header, id, text and title, quoted where
    need be. Raises UserError for too many records that are broken, empty or repeat an id.
    """
    path = need_path(Path(path).expanduser())
    is_json = plain_name(path).endswith(".jsonl")

    def fill(directory: Path, bad: BadRecords) -> None:
        parse, unique = _object if is_json else _Tsv(), Unique()

        def checked(line: str) -> Text | None:
            text = parse(line)
            if text is not None:
                unique.check(checked_text(text).id)
            return text

        found = (row.record for row in sound_records(path, checked, bad))
        write_table(directory / TEXTS, SCHEMA, found)

    return Texts(store(str(path), describe_file(path), fill, bad_share) / TEXTS)


def _object(line: str) -> Text:
    record = json_object(line)
    name = next((field for field in IDS if field in record), IDS[0])
    return Text(id_field(record, name), text_field(record, "text"), text_field(record, "title", ""))


class _Tsv:
    """Parses "id text", or rows under the header "id text title"."""

    def __init__(self) -> None:
        self.has_header: bool | None = None

    def __call__(self, line: str) -> Text | None:
        if self.has_header is None:
            self.has_header = line.split("\t") == ["id", "text", "title"]
            if self.has_header:
                return None
        if not self.has_header:
            name, tab, text = line.partition("\t")
            if not tab:
                raise Broken("has no tab between id and text")
            return Text(checked_id(name), text)
        fields = table_fields(line, delimiter="\t")
        if len(fields) != 3:
            raise Broken(f"has {len(fields)} fields, not id, text, title")
        return Text(checked_id(fields[0]), *fields[1:])
