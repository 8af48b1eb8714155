"""The data sets: which examples, in which order, with which targets; and what is refused, by name."""

import hashlib

import numpy as np
import pytest
from msgspec.structs import replace

from engine import data
from engine.base.errors import UserError
from engine.data import catalog, embedded, words
from engine.spec import DEFAULT_PRESET, Data, load_spec

SHIRTS = Data(name="fashion", classes=(0, 6), standardize="none")


def test_the_default_problem_takes_the_first_five_hundred_of_each_class():
    images, labels, *_ = embedded.fashion()
    dataset = data.load(SHIRTS)
    assert dataset.inputs.shape == (1000, 28, 28, 1)
    for label, sign, half in ((0, -1, slice(0, 500)), (6, 1, slice(500, 1000))):
        np.testing.assert_array_equal(dataset.inputs[half], images[labels == label][:500])
        assert (dataset.targets[half] == sign).all()
    assert (dataset.classes, dataset.outputs) == (2, 1)
    assert dataset.rule.startswith("the first 500 of T-shirt (−1) and shirt (+1) in file order")


def test_the_default_problem_is_the_same_to_the_last_bit():
    part = load_spec(DEFAULT_PRESET).problem.data
    assert data.load(part).sha256 == "23f142b8a6168fab0ef5b134c0169b3e837be1bf13f3ce07450f421f717910ee"


def test_test_images_are_prepared_with_the_statistics_of_the_training_images():
    part = Data(name="fashion", classes=(0, 6), examples=100, test_examples=40)
    dataset, plain = data.load(part), data.load(replace(part, standardize="none"))
    mean = plain.inputs.astype(float).mean(axis=0)
    spread = (plain.inputs - mean).std()
    np.testing.assert_allclose(dataset.test_inputs, (plain.test_inputs - mean) / spread, atol=1e-5)
    np.testing.assert_array_equal(dataset.test_targets[:, 0], np.repeat([-1, 1], 20))
    pool = embedded.fashion()
    np.testing.assert_array_equal(plain.test_inputs[:20], pool.test_inputs[pool.test_labels == 0][:20])
    assert dataset.rule.startswith("the first 50 of T-shirt (−1) and shirt (+1) in file order, "
                                 "tested on the first 20 a class of the test set;")
    assert dataset.sha256 == data.load(replace(part, test_examples=0)).sha256


def test_where_there_is_no_test_set_the_images_after_the_training_ones_are_it():
    dataset = data.load(Data(name="digits", classes=(3, 8), examples=40, test_examples=10, standardize="none"))
    more = data.load(Data(name="digits", classes=(3, 8), examples=50, standardize="none"))
    np.testing.assert_array_equal(dataset.test_inputs, np.concatenate([more.inputs[20:25], more.inputs[45:]]))
    assert "tested on the first 5 a class after them" in dataset.rule


def test_without_test_examples_there_are_none():
    dataset = data.load(Data(name="digits", examples=10))
    assert dataset.test_inputs is None
    assert dataset.test_targets is None


def test_test_sentences_use_the_vocabulary_of_the_training_sentences():
    part = Data(name="sentences", classes=(0, 1), examples=100, test_examples=400, standardize="none")
    dataset = data.load(part)
    assert dataset.vocabulary == data.load(replace(part, test_examples=0)).vocabulary
    assert dataset.test_inputs.shape[0] == 400
    assert (dataset.test_inputs[:, 0] == words.START).all()
    assert dataset.test_inputs.max() < len(dataset.vocabulary)


def test_standardized_inputs_have_no_mean_image_and_unit_spread():
    dataset = data.load(Data(name="fashion", classes=(0, 6)))
    assert dataset.inputs.dtype == np.float32
    assert np.abs(dataset.inputs.astype(float).mean(axis=0)).max() < 1e-6
    assert dataset.inputs.astype(float).std() == pytest.approx(1, abs=1e-6)
    plain = data.load(SHIRTS).inputs.astype(float)
    centred = plain - plain.mean(axis=0)
    np.testing.assert_allclose(dataset.inputs, centred / centred.std(), atol=1e-6)


def test_a_global_standardization_removes_one_number():
    dataset = data.load(Data(name="digits", examples=1000, standardize="global")).inputs.astype(float)
    plain = data.load(Data(name="digits", examples=1000, standardize="none")).inputs.astype(float)
    np.testing.assert_allclose(dataset, (plain - plain.mean()) / plain.std(), atol=1e-6)


def test_more_than_two_classes_have_their_number_as_target():
    dataset = data.load(Data(name="digits", examples=300, classes=(7, 1, 4)))
    np.testing.assert_array_equal(dataset.targets, np.repeat([0, 1, 2], 100))
    assert (dataset.targets.dtype, dataset.outputs) == (np.int32, 3)
    assert data.load(Data(name="digits")).outputs == 10
    assert data.load(Data(name="digits", standardize="none")).inputs.max() == 16


def test_padding_puts_the_image_in_the_middle_of_zeros():
    plain, padded = (data.load(Data(name="fashion", examples=10, pad_to=side, standardize="none")).inputs for side in (0, 32))
    assert padded.shape == (10, 32, 32, 1)
    np.testing.assert_array_equal(padded[:, 2:30, 2:30], plain)
    assert padded.sum() == plain.sum()


@pytest.mark.parametrize("degree", [1, 2, 4, 5])
def test_chebyshev_targets_are_the_cosine_of_so_many_angles(degree):
    dataset = data.load(Data(name="chebyshev", examples=20, degree=degree, standardize="none"))
    x = np.linspace(-1, 1, 20)
    np.testing.assert_allclose(dataset.inputs[:, 0], x, atol=1e-7)
    np.testing.assert_allclose(dataset.targets[:, 0], np.cos(degree * np.arccos(x)), atol=1e-6)
    assert (dataset.classes, dataset.outputs) == (0, 1)


def test_words_are_sorted_by_count_then_spelling_and_rare_ones_are_unknown():
    sentences = ["The film, the film!", "A film isn't the A.", "Odd"]
    vocabulary = words.vocabulary(sentences)
    assert vocabulary == ("[PAD]", "[UNK]", "[CLS]", "film", "the", "a")
    np.testing.assert_array_equal(
        words.tokens(sentences, vocabulary),
        [[2, 4, 3, 1, 4, 3, 1], [2, 5, 3, 1, 4, 5, 1], [2, 1, 0, 0, 0, 0, 0]],
    )


def test_long_sentences_are_cut_to_sixty_four_tokens():
    assert words.tokens(["word " * 100], ("[PAD]", "[UNK]", "[CLS]", "word")).shape == (1, 64)


def test_a_word_becomes_its_longest_pieces_from_the_left(tmp_path):
    """The worked examples of the WordPiece paper's tokenizer: un ##aff ##able, and [UNK] where the rest has no piece."""
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\nlow\n[UNK]\n[CLS]\nun\n##aff\n##able\n##a\n,\ncafe\nlowest\n##est\n##x\n", encoding="utf-8")
    pieces = words.read_pieces(str(path))
    np.testing.assert_array_equal(
        words.piece_tokens(["Unaffable, lowest café", "unaffabl low", "x" * 101], pieces),
        [[3, 4, 5, 6, 8, 10, 9], [3, 2, 1, 0, 0, 0, 0], [3, 2, 0, 0, 0, 0, 0]],
    )
    part = Data(name="sentences", classes=(0, 1), examples=10, test_examples=4, standardize="none", vocab_file=str(path))
    dataset = data.load(part)
    assert dataset.vocabulary == pieces
    assert (dataset.inputs[:, 0] == 3).all()
    assert "13 word pieces of vocab.txt, at most 64 tokens" in dataset.rule
    assert dataset.facts["vocabulary_sha256"] == hashlib.sha256("\n".join(pieces).encode()).hexdigest()


@pytest.mark.parametrize(("body", "said"), [
    (b"[CLS]\n[UNK]\n[PAD]\n", "expected [PAD] on the first line"), (b"[PAD]\n[UNK]\n", "expected [PAD] on the first line, and"),
    (b"", "not a WordPiece vocabulary"), (b"[PAD]\n[UNK]\n[CLS]\na\na\n", "'a' stands there twice"), (b"\xff", "not UTF-8 text"),
])  # fmt: skip
def test_what_is_no_vocabulary_is_refused(tmp_path, body, said):
    path = tmp_path / "vocab.txt"
    path.write_bytes(body)
    with pytest.raises(UserError) as refusal:
        words.read_pieces(str(path))
    assert said in str(refusal.value)
    with pytest.raises(UserError, match="the vocabulary cannot be read"):
        words.read_pieces(str(tmp_path / "none"))


def test_the_path_of_a_vocabulary_is_made_absolute_and_checked_before_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = load_spec("sentences", ["problem.data.vocab_file=vocab.txt"])
    with pytest.raises(UserError, match=r"vocab_file = 'vocab.txt': no such file"):
        catalog.ready(spec)
    (tmp_path / "vocab.txt").write_text("[PAD]")
    assert catalog.ready(spec).problem.data.vocab_file == str(tmp_path / "vocab.txt")


def test_in_file_order_the_first_come_as_they_lie():
    images, labels, *_ = embedded.digits()
    dataset = data.load(Data(name="digits", examples=25, order="file", test_examples=5, standardize="none"))
    np.testing.assert_array_equal(dataset.inputs, images[:25])
    np.testing.assert_array_equal(dataset.targets, labels[:25])
    np.testing.assert_array_equal(dataset.test_inputs, images[25:30])
    assert dataset.rule.startswith("the first 25 of 10 classes in file order, tested on the first 5 after them")


def test_sentences_become_tokens_of_their_own_vocabulary():
    dataset = data.load(Data(name="sentences", examples=200, classes=(0, 1), standardize="none"))
    sentences, labels, *_ = embedded.sentences()
    places = np.concatenate([np.flatnonzero(labels == label)[:100] for label in (0, 1)])
    kept = [sentences[k] for k in places]
    assert dataset.inputs.dtype == np.int32
    assert (dataset.inputs[:, 0] == words.START).all()
    assert dataset.inputs.max() == len(dataset.vocabulary) - 1
    np.testing.assert_array_equal(dataset.targets[:, 0], np.repeat([-1, 1], 100))
    first = [dataset.vocabulary[k] for k in dataset.inputs[0] if k > words.START]
    assert first == [word for word in words.split(kept[0]) if word in dataset.vocabulary]
    counts = [sum(words.split(text).count(word) for text in kept) for word in dataset.vocabulary[3:]]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == words.MIN_COUNT


def test_the_same_specification_gives_the_same_bytes():
    part = Data(name="digits", examples=40, classes=(3, 8))
    first, second = data.load(part), data.load(part)
    assert first.sha256 == second.sha256 == hashlib.sha256(first.inputs.tobytes() + first.targets.tobytes()).hexdigest()
    assert first.sha256 != data.load(Data(name="digits", examples=42, classes=(3, 8))).sha256


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"name": "fashion", "examples": 5010}, '"fashion" has 500 a class, so at most 5000 of 10 classes'),
        ({"name": "digits", "examples": 1797}, "examples = 1797: 10 classes take equal shares; 1790 would do"),
        ({"name": "digits", "examples": 1}, "examples = 1: 10 classes take equal shares; 10 would do"),
        ({"name": "fashion", "classes": (0, 10)}, 'classes = [0, 10]: "fashion" has no class 10; its labels are 0 to 9'),
        ({"name": "sentences", "classes": (0, 2), "standardize": "none"}, "its labels are 0 to 1"),
        ({"name": "fashion", "classes": (3, 3)}, "classes = [3, 3]: expected two different labels or more"),
        ({"name": "fashion", "classes": (3,)}, "expected two different labels or more"),
        ({"name": "fashion", "pad_to": 20}, "pad_to = 20: the images are 28×28"),
        ({"name": "digits", "examples": 1700, "test_examples": 50}, "test_examples = 50: \"digits\" has 4 a class left, so at most 40"),
        ({"name": "fashion", "examples": 10, "test_examples": 1010}, '"fashion" has 100 a class, so at most 1000'),
        ({"name": "fashion", "examples": 10, "test_examples": 5}, "test_examples = 5: 10 classes take equal shares; 10 would do"),
        ({"name": "chebyshev", "test_examples": 5, "standardize": "none"}, 'test_examples = 5: "chebyshev" has no such thing; use 0'),
        ({"name": "digits", "examples": 1798, "order": "file"}, 'examples = 1798: "digits" has 1797 of 10 classes'),
        ({"name": "digits", "channels": 3, "vocab_file": "x"}, '"digits" has no words; use ""'),
        ({"name": "chebyshev", "order": "file"}, '"chebyshev" comes from no file'),
        ({"name": "chebyshev", "standardize": "channel"}, "only images have channels"),
        ({"name": "sentences", "channels": 3}, 'channels = 3: "sentences" has no images; use 0, or one of "fashion", "digits"'),
        ({"name": "chebyshev", "pad_to": 20}, 'pad_to = 20: "chebyshev" has no images'),
        ({"name": "chebyshev", "classes": (0, 1)}, '"chebyshev" is a regression and has no classes'),
        ({"name": "chebyshev", "examples": 1}, "all inputs are equal"),
        ({"name": "sentences"}, 'standardize = "mean_image": the tokens of "sentences" are no quantities; use "none"'),
    ],
)
def test_what_is_not_there_is_refused_by_name(part, said):
    with pytest.raises(UserError) as refusal:
        data.load(Data(**part))
    assert said in str(refusal.value)


def test_the_largest_subsets_are_there():
    assert len(data.load(Data(name="fashion", examples=5000, standardize="none")).inputs) == 5000
    assert len(data.load(Data(name="sentences", examples=2000, standardize="none")).inputs) == 2000


@pytest.mark.parametrize("name", embedded.SHA256)
def test_a_changed_or_missing_file_is_refused(name, tmp_path, monkeypatch):
    reader = {"fashion_mnist_5k.npz": embedded.fashion, "digits.npz": embedded.digits}.get(name, embedded.sentences)
    monkeypatch.setattr(embedded, "files", lambda _: tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        reader()
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(UserError, match=r"its SHA-256 sum differs\); install eos-tui again"):
        reader()
