from __future__ import annotations

import pytest

from ralr_tune.images.layout import is_hidden, mentions_split, names_a_split, split_of


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Train TRAIN training Training trainset TrainSet TRAINset train_images training-data"),
        ("validation", "val Val VALID valid validation dev Dev development val_set ValidationData"),
        ("test", "test Test TESTING testing test_images TestSet test split"),
        (None, "eval holdout train1 val_2017 seg_train bullet_train testament training_shoe trainer cat 猫 tests-old"),
    ],
)
def test_splits_go_by_their_usual_names_in_any_case(split: str | None, names: str) -> None:
    assert {split_of(name) for name in names.replace("test split", "test_split").split()} == {split}


def test_names_that_say_a_split_and_nothing_else() -> None:
    for name in ["train", "train1", "val_2017", "eval", "hold_out", "trainval", "Test2", "evaluation-set"]:
        assert names_a_split(name), name
    for name in ["bullet_train", "seg_test", "cat", "2017", "images"]:
        assert not names_a_split(name), name
    assert mentions_split("seg_test")
    assert not mentions_split("testament")


def test_what_systems_leave_behind() -> None:
    for name in ["._photo.jpg", ".ipynb_checkpoints", "@eaDir", "__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN"]:
        assert is_hidden(name), name
    for name in ["photo.jpg", "@home", "macosx", "#1"]:
        assert not is_hidden(name), name
