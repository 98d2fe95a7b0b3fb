"""Who names a teacher that is not there, or that cannot teach, is told what to do."""

import pytest

from condenser_jax.errors import UserError
from condenser_jax.teachers import find_teacher
from tests.encoders import export_tiny

FIRST = r"python launch/train.py --config=configs/mlm.py:teacher$"


def test_a_mistyped_teacher_is_no_hub_id_and_may_be_trained_here():
    with pytest.raises(UserError, match=f"^'mlm-teechr' is neither a dir.*; or train .*: {FIRST}"):
        find_teacher("mlm-teechr")


def test_a_directory_that_cannot_be_read_keeps_its_own_message(tmp_path):
    with pytest.raises(UserError, match=r"config\.json") as error:
        find_teacher(str(tmp_path))
    assert "train a teacher" not in str(error.value)


def test_a_teacher_without_head_is_told_how_to_get_one_and_how_to_go_on(tmp_path):
    where = str(export_tiny(tmp_path))
    with pytest.raises(UserError, match="has no MLM head") as error:
        find_teacher(where)
    told = str(error.value)
    assert f"--config.model.init={where} --config.objective.frozen_backbone=True" in told
    assert told.endswith(
        "--workdir=runs/teacher-with-head; then --config.objective.teacher=runs/teacher-with-head"
    )
