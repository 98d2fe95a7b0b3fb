"""Questions with answers: DPR's files, and answers beside a collection's queries."""

import ast
from pathlib import Path
from typing import Any

from condenser_jax.data.documents import BadRecords
from condenser_jax.errors import UserError
from condenser_jax.retrieval.sound import (
    Broken,
    Unique,
    id_field,
    json_object,
    plain_name,
    sound_records,
    table_fields,
    tell_broken,
    text_field,
)
from condenser_jax.retrieval.texts import Text, Texts

ANSWER_FIELDS = ("answers", "answer")  # DPR's and NQ-open's name


def read_questions(path: str | Path, bad_share: float) -> tuple[Texts, dict[str, list[str]]]:
    """Reads questions and their answers; a question's id is the number of its line.

    A .jsonl file has objects with `question` and `answers`; .csv and .tsv files have the question
    and a list of answers as Python writes it, between tabs (also in DPR's files named .csv) or
    commas. Raises UserError for too many broken lines.
    """
    bad = BadRecords(bad_share)
    parse = _of_object if plain_name(path).endswith(".jsonl") else _of_row
    questions: list[Text] = []
    answers: dict[str, list[str]] = {}
    for place, (question, strings) in sound_records(path, parse, bad):
        number = place.rpartition(":")[2]
        questions.append(Text(number, question))
        answers[number] = strings
    tell_broken(str(path), bad)
    if not questions:
        raise UserError(f"{path} holds no question; check the path")
    return Texts.of(questions), answers


def read_answers(path: str | Path, bad_share: float) -> dict[str, list[str]]:
    """Reads JSON lines of `_id` (of a query) and `answers`."""
    bad, unique = BadRecords(bad_share), Unique()

    def parse(line: str) -> tuple[str, list[str]]:
        record = json_object(line)
        name = id_field(record, "_id")
        unique.check(name)
        return name, _strings(record)

    found = dict(row.record for row in sound_records(path, parse, bad))
    tell_broken(str(path), bad)
    return found


def _of_object(line: str) -> tuple[str, list[str]]:
    record = json_object(line)
    return _question(text_field(record, "question")), _strings(record)


def _of_row(line: str) -> tuple[str, list[str]]:
    fields = table_fields(line, delimiter="\t" if "\t" in line else ",")
    if len(fields) != 2:
        raise Broken(f"has {len(fields)} fields, not question and answers")
    try:
        answers = ast.literal_eval(fields[1])
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise Broken(f"answers {fields[1][:40]!r} are not a list of strings") from error
    return _question(fields[0]), _strings({"answers": answers})


def _question(text: str) -> str:
    if not text.strip():
        raise Broken("has an empty question")
    return text.strip()


def _strings(record: dict[str, Any]) -> list[str]:
    value = next((record[field] for field in ANSWER_FIELDS if field in record), None)
    if not isinstance(value, list) or not all(isinstance(answer, str) for answer in value):
        raise Broken(f"answers {str(value)[:40]!r} are not a list of strings")
    filled = [answer for answer in value if answer.strip()]
    if not filled:
        raise Broken("has no answer")
    return filled
