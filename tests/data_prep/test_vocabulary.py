"""New tokens: what they shorten, and that nothing old changes."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizer import SPECIAL, build_tokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from data_prep.errors import DataError
from data_prep.fertility import fertility
from data_prep.new_tokens import NewToken
from data_prep.tokenizer import Tokenizer, load_tokenizer
from data_prep.tokenizer_extension import extend_tokenizer
from data_prep.tokenizer_training import TokenizerSettings, save_tokenizer, train_tokenizer
from data_prep.vocabulary import propose_tokens, tokens_for_words

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
WORDS = ["kubernetes", "Größe", "señor", "полезно", "中华", "kubectl", "kuberneteses"]
CORPUS = [f"the {word} of a {word}, \n\n  {word}s 2024 2024 <|im_end|>{word}" for word in WORDS] * 6
ALPHABET = st.sampled_from([*"kubernts aGößeñпл中华\n <", " kubernetes", "<|im_end|>", "señor"])
TEXTS = st.lists(ALPHABET, max_size=25).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=40
)


def write_sentencepiece(folder: Path) -> Path:
    """A tokenizer of Llama 2's kind: no pre-tokeniser, a mark for spaces, bytes spelled out."""
    backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    spelled = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<unk>", "<s>", "</s>", *spelled], show_progress=False
    )
    backend.train_from_iterator(["the", "kuber", "net", "es", "of", "a"] * 2, trainer)
    described = json.loads(backend.to_str())
    described["added_tokens"] = described["added_tokens"][:3]  # bytes are ordinary tokens
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def write_tokenizer(folder: Path, kind: str) -> Path:
    if kind == "sentencepiece":
        return write_sentencepiece(folder)
    build_tokenizer(folder)
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    if kind == "special tokens last":  # as Llama 3 and Qwen have them: behind the vocabulary
        model, count = described["model"], len(SPECIAL)
        model["vocab"] = {t: i - count for t, i in model["vocab"].items() if t not in SPECIAL}
        for place, entry in enumerate(described["added_tokens"]):
            entry["id"] = len(model["vocab"]) + place
    if kind == "merges as text":
        model = described["model"]
        model["merges"] = [" ".join(merge) for merge in model["merges"]]
    if kind == "ignore merges":  # as Llama 3 has it: a word that is a token is not cut at all
        described["model"]["ignore_merges"] = True
    path.write_text(json.dumps(described), encoding="utf-8")
    return folder


KINDS = (
    *("special tokens first", "special tokens last", "merges as text", "ignore merges"),
    "sentencepiece",
)


class Extended:
    def __init__(self, old: Tokenizer, new: Tokenizer, tokens: list[NewToken]) -> None:
        self.old, self.new, self.tokens = old, new, tokens
        self.pieces = {new.id_of(token.token): token.pieces for token in tokens}

    def expanded(self, ids: list[int]) -> list[int]:
        """Every new id as the old ones it stands for."""
        return [piece for index in ids for piece in self.pieces.get(index, (index,))]


@pytest.fixture(scope="module", params=KINDS)
def extended(request, tmp_path_factory) -> Extended:
    folder = tmp_path_factory.mktemp("extended")
    old = load_tokenizer(write_tokenizer(folder / "old", request.param))
    tokens = propose_tokens(old, CORPUS, count=40)
    return Extended(old, extend_tokenizer(folder / "old", tokens, folder / "new"), tokens)


def total(tokenizer: Tokenizer, texts: list[str]) -> int:
    return sum(map(len, tokenizer.encode(texts)))


@given(text=TEXTS)
def test_new_tokens_only_abbreviate_what_there_was(extended, text):
    (before,), (after,) = extended.old.encode([text]), extended.new.encode([text])
    assert extended.expanded(after) == before
    assert extended.new.decode(after) == extended.old.decode(before)
    if not set(after) & set(extended.pieces):
        assert after == before


def test_a_byte_level_text_still_comes_back_as_it_was(extended):
    for text in CORPUS:
        back = extended.new.decode(extended.new.encode([text])[0])
        assert back == text or extended.old.decode(extended.old.encode([text])[0]) == back


def test_the_corpus_gets_shorter_by_exactly_the_gains(extended):
    saved = total(extended.old, CORPUS) - total(extended.new, CORPUS)
    assert saved == sum(token.gain for token in extended.tokens) > 0


def test_old_ids_stay_and_new_ones_follow(extended):
    before = extended.old.backend.get_vocab()
    after = extended.new.backend.get_vocab()
    assert {token: after[token] for token in before} == before
    ids = [after[token.token] for token in extended.tokens]
    assert ids == list(range(max(before.values()) + 1, max(before.values()) + 1 + len(ids)))
    assert len(after) == len(before) + len(ids)
    assert extended.new.special_ids == extended.old.special_ids


def test_no_gain_is_below_the_asked_frequency(extended):
    gains = [token.gain for token in extended.tokens]
    assert min(gains) >= 5
    assert len(gains) <= 40


def test_proposals_hold_no_white_space_inside_no_digits_and_no_special_tokens(extended):
    for token in extended.tokens:
        text = extended.old.decode(token.pieces)
        assert "\n" not in token.token
        assert "Ċ" not in token.token
        assert " " not in text.strip(" ")
        assert not any(c.isdigit() for c in text)
        assert not extended.old.special_ids & set(token.pieces)
        assert all(len(token.token) >= 2 for token in extended.tokens)


def test_the_same_corpus_in_any_order_proposes_the_same(tokenizer):
    expected = propose_tokens(tokenizer, CORPUS, count=30)
    assert propose_tokens(tokenizer, reversed(CORPUS), count=30) == expected


def test_the_greedy_choice_is_the_most_frequent_pair_each_time(tokenizer):
    """Beside a plain program that counts every pair again before each choice."""
    words: dict[tuple[str, ...], int] = {}
    for text in CORPUS:
        encoding = tokenizer.backend.encode(text, add_special_tokens=False)
        by_word: dict[int, list[str]] = {}
        for token, word in zip(encoding.tokens, encoding.word_ids):
            by_word.setdefault(word, []).append(token)
        for pieces in by_word.values():
            words[tuple(pieces)] = words.get(tuple(pieces), 0) + 1
    known = dict(tokenizer.backend.get_vocab())
    for chosen in propose_tokens(tokenizer, CORPUS, count=25):
        counts: dict[tuple[str, str], int] = {}
        for pieces, times in words.items():
            for pair in pairwise(pieces):
                joined = "".join(pair)
                plain = joined.removeprefix("Ġ")
                if joined not in known and not set(plain) & set("ĠĊ0123456789"):
                    counts[pair] = counts.get(pair, 0) + times
        most = max(counts.values())
        best = min((known[a], known[b]) for (a, b), n in counts.items() if n == most)
        assert (known[chosen.left], known[chosen.right]) == best
        assert chosen.gain == most
        known[chosen.token] = len(known)
        replaced: dict[tuple[str, ...], int] = {}
        for pieces, times in words.items():
            joined_pieces: list[str] = []
            for piece in pieces:
                if joined_pieces and (joined_pieces[-1], piece) == (chosen.left, chosen.right):
                    joined_pieces[-1] = chosen.token
                else:
                    joined_pieces.append(piece)
            key = tuple(joined_pieces)
            replaced[key] = replaced.get(key, 0) + times
        words = replaced


def test_a_join_that_is_a_token_already_is_left_alone(tmp_path):
    """Here ``abc`` is a token that text never reaches: of ``abc`` the first two join first."""
    tokens = ["a", "b", "c", "ab", "bc", "abc", "x", "y", "z"]
    merges = [("a", "b"), ("b", "c"), ("a", "bc")]
    backend = tokenizers.Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.save(str(tmp_path / "tokenizer.json"))
    old = load_tokenizer(tmp_path)
    assert old.backend.encode("abc").tokens == ["ab", "c"]
    assert propose_tokens(old, ["abc"] * 9, count=5) == []
    with pytest.raises(DataError, match=r"its pieces \['ab', 'c'\] join to other tokens"):
        tokens_for_words(old, [" abc".strip()])
    # xy + z is made first; x + yz would be the same token once more.
    corpus = ["xyz"] * 30 + ["yzb"] * 20 + ["axyb"] * 9 + ["xxyzb"]
    found = [token.token for token in propose_tokens(old, corpus, count=99, min_frequency=1)]
    assert len(found) == len(set(found))


def test_no_token_reaches_from_one_word_into_another(tokenizer):
    found = propose_tokens(tokenizer, ["e-mail,e-mail"] * 50 + ["zq zq"] * 9, count=50)
    assert found
    assert not [token for token in found if set(token.token) & set("-,")]


def test_a_rare_pair_is_not_joined(tokenizer):
    assert propose_tokens(tokenizer, ["zqxj zqxj"], count=9, min_frequency=3) == []
    assert propose_tokens(tokenizer, ["zqxj zqxj"], count=9, min_frequency=2)
    assert len(propose_tokens(tokenizer, CORPUS, count=3)) == 3


def test_an_empty_corpus_is_refused(tokenizer):
    with pytest.raises(DataError, match="the corpus is empty"):
        propose_tokens(tokenizer, ["", ""], count=3)


@pytest.mark.parametrize("kind", KINDS)
def test_named_words_become_one_token_with_a_space_and_without(tmp_path, kind):
    old = load_tokenizer(write_tokenizer(tmp_path / "old", kind))
    words = [word for word in WORDS if kind != "sentencepiece" or word.startswith("kuberne")]
    tokens = tokens_for_words(old, words)
    new = extend_tokenizer(tmp_path / "old", tokens, tmp_path / "new")
    for word in words:
        assert len(new.encode([word])[0]) == 1
        longer = new.encode([f"a {word}"])[0]
        assert longer[:-1] == old.encode(["a"])[0]
        assert new.decode(longer) == f"a {word}"
    together = Extended(old, new, tokens)
    for text in CORPUS:
        assert together.expanded(new.encode([text])[0]) == old.encode([text])[0]


def test_a_word_that_is_one_token_already_or_named_twice_adds_nothing(tokenizer):
    assert tokens_for_words(tokenizer, [" the"]) == []
    once = tokens_for_words(tokenizer, ["kubernetes"])
    assert tokens_for_words(tokenizer, ["kubernetes", "kubernetes", " kubernetes"]) == once


def test_a_word_named_with_a_space_is_made_with_the_space_only(tmp_path, tokenizer_folder):
    old = load_tokenizer(tokenizer_folder)
    tokens = tokens_for_words(old, [" zq"])
    new = extend_tokenizer(tokenizer_folder, tokens, tmp_path / "new")
    assert [len(new.encode([text])[0]) for text in (" zq", "zq")] == [1, 2]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("New York", "white space inside"),
        ("", "white space inside"),
        ("  x", "white space inside"),
        ("e-mail", "always cuts it, into"),
        ("<|im_end|>", "always cuts it, into"),
    ],
)
def test_words_that_can_never_be_one_token_are_refused(tokenizer, word, said):
    with pytest.raises(DataError, match=said):
        tokens_for_words(tokenizer, ["fine", word])


def test_other_models_are_refused(tmp_path):
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="a WordLevel model; only plain byte-pair encoding"):
        propose_tokens(load_tokenizer(tmp_path), ["a"], count=1)


def test_tokens_of_another_tokenizer_are_refused_and_nothing_is_written(tmp_path, tokenizer_folder):
    for token, said in [
        (NewToken("qqq", "qq", "q", (1, 2), 0), "not made of two tokens"),
        (NewToken("xx", "x", "z", (1, 2), 0), "not made of two tokens"),
        (NewToken("a", "a", "", (1,), 0), "is a token of this vocabulary already"),
    ]:
        with pytest.raises(DataError, match=said):
            extend_tokenizer(tokenizer_folder, [token], tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_what_the_folder_says_beside_the_vocabulary_is_carried_along(tmp_path):
    folder = build_tokenizer(tmp_path / "old", chat_template="{{ messages }}")
    (folder / "merges.txt").write_text("stale")
    (folder / "chat_template.jinja").write_text("{{ messages[0] }}")
    tokens = tokens_for_words(load_tokenizer(folder), ["kubectl"])
    new = extend_tokenizer(folder, tokens, tmp_path / "new")
    assert (new.special, new.chat_template) == (load_tokenizer(folder).special, "{{ messages[0] }}")
    names = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names


@pytest.mark.parametrize("kind", KINDS[:4])
def test_transformers_reads_the_same_ids(tmp_path, kind):
    from transformers import AutoTokenizer

    old = load_tokenizer(write_tokenizer(tmp_path / "old", kind))
    tokens = propose_tokens(old, CORPUS, count=30)
    new = extend_tokenizer(tmp_path / "old", tokens, tmp_path / "new")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert [theirs.encode(t, add_special_tokens=False) for t in CORPUS] == new.encode(CORPUS)
    theirs.save_pretrained(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").encode(CORPUS) == new.encode(CORPUS)


def test_a_class_of_transformers_that_builds_its_model_anew_reads_the_same_ids(tmp_path):
    from transformers import Qwen2Tokenizer

    folder = write_tokenizer(tmp_path / "old", "special tokens last")
    tokens = propose_tokens(load_tokenizer(folder), CORPUS, count=30)
    new = extend_tokenizer(folder, tokens, tmp_path / "new")
    theirs = Qwen2Tokenizer.from_pretrained(tmp_path / "new")
    words = [f"the {word} of" for word in WORDS]
    assert [theirs.encode(t, add_special_tokens=False) for t in words] == new.encode(words)
    assert set(new.encode(words)[0]) & {new.id_of(token.token) for token in tokens}


def test_the_same_tokens_give_the_same_file(tmp_path, tokenizer_folder):
    for name in ("one", "two"):
        tokens = propose_tokens(load_tokenizer(tokenizer_folder), CORPUS, count=30)
        extend_tokenizer(tokenizer_folder, tokens, tmp_path / name)
    one, two = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")
def test_on_real_text_new_tokens_save_what_they_promise_and_lose_nothing(tmp_path):
    wiki = (SHARED / "wiki_demo" / "wiki_demo.txt").read_text(encoding="utf-8").split("\n")[:9]
    plays = (SHARED / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8").split("\n\n")
    settings = TokenizerSettings(vocab_size=4000)
    save_tokenizer(train_tokenizer(wiki, settings), settings, tmp_path / "old")
    old = load_tokenizer(tmp_path / "old")
    mined, held_out = plays[:3000], plays[3000:]
    tokens = propose_tokens(old, mined, count=300)
    assert len(tokens) == 300
    new = extend_tokenizer(tmp_path / "old", tokens, tmp_path / "new")
    saved = total(old, mined) - total(new, mined)
    assert saved == sum(token.gain for token in tokens)
    before, after = fertility(old, held_out), fertility(new, held_out)
    assert before.tokens_per_word > after.tokens_per_word
    together = Extended(old, new, tokens)
    for text, was, now in zip(held_out, old.encode(held_out), new.encode(held_out)):
        assert together.expanded(now) == was
        assert new.decode(now) == text
