"""Conversations as tokens, of which only the last answer is learnt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..targets.measures import IGNORED
from .data import Example
from .schemas import Message, as_messages

PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "### {{ message['role'] }}\n{{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}\n\n"
    "{% endfor %}{% if add_generation_prompt %}### assistant\n{% endif %}"
)
_SHORTER = (
    "raise `max_length` (--max-length) or shorten it; long answers of data are cut by "
    "`truncate='answer'` (--truncate)"
)
Row = dict[str, Any]


def encode(
    examples: Iterable[Example],
    tokenizer: Any,
    *,
    max_length: int,
    truncate: str | None = None,
) -> list[Row]:
    """Turn conversations into tokens, with the last answer as what is to be learnt.

    Parameters
    ----------
    examples : iterable of Example
        Conversations.
    tokenizer : PreTrainedTokenizerBase
        Its chat template says how a conversation is written; a plain one, with lines
        such as ``### user``, is taken if it has none.
    max_length : int
        Most tokens of an example.
    truncate : {None, "answer"}, default=None
        What to do with a longer one: refuse it, or cut the end of the answer off.

    Returns
    -------
    list of dict
        For each example its `input_ids`, `attention_mask`, `labels` (the tokens of the
        last answer with its end token, -100 before it) and `index`, its number.

    Raises
    ------
    ValueError
        If an example is too long or its answer has no token; the message says where
        it comes from.

    See Also
    --------
    collate : Puts rows into one batch.

    Examples
    --------
    >>> from fstat_torch.llama import Example, encode, tiny_llama
    >>> _, tokenizer = tiny_llama()
    >>> example = Example.of("Who are you?", "A model.")
    >>> row = encode([example], tokenizer, max_length=64)[0]
    >>> learnt = [token for token in row["labels"] if token >= 0]
    >>> tokenizer.decode(learnt)
    'A model.</s>'
    """
    if int(max_length) != max_length or max_length < 2:
        raise ValueError(
            f"`max_length` must be an integer of at least 2, got {max_length!r}."
        )
    if truncate not in (None, "answer"):
        raise ValueError(f"`truncate` must be None or 'answer', got {truncate!r}.")
    return [
        _row(example, tokenizer, int(max_length), truncate) | {"index": number}
        for number, example in enumerate(examples)
    ]


def _row(
    example: Example, tokenizer: Any, max_length: int, truncate: str | None
) -> Row:
    prompt, answer = tokens_of(example, tokenizer)
    room = max_length - len(prompt)
    if len(answer) > room and (truncate is None or room < 1):
        raise ValueError(
            f"{example.source} must have at most `max_length`={max_length} tokens, got "
            f"{len(prompt)} before the answer and {len(answer)} in it: {_SHORTER}."
        )
    answer = answer[:room]
    length = len(prompt) + len(answer)
    return {
        "input_ids": [*prompt, *answer],
        "attention_mask": [1] * length,
        "labels": [IGNORED] * len(prompt) + answer,
    }


def tokens_of(example: Example, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the tokens before the last answer, and those of the answer.

    Parameters
    ----------
    example : Example
        A conversation.
    tokenizer : PreTrainedTokenizerBase
        Tokenizer, with its chat template if it has one.

    Returns
    -------
    prompt, answer : list of int
        Tokenised apart, as they are when the model answers by itself. The answer ends
        with the token that ends it; what the template writes after it is left out.

    Raises
    ------
    ValueError
        If the answer has no token, or the template refuses or leaves out a message, or
        does not begin an answer with what it asks for one with.
    """
    asked = write_prompt(example.messages[:-1], tokenizer, example.source)
    whole = _write(example.messages, tokenizer, example.source)
    if not whole.startswith(asked):
        raise ValueError(
            "The chat template of `tokenizer` must begin an answer with what it asks "
            f"for one with, got {asked[-40:]!r} and an answer that begins otherwise in "
            f"{example.source}."
        )
    prompt = _tokenise(tokenizer, asked)
    answer = _ended(_tokenise(tokenizer, whole[len(asked) :]), tokenizer.eos_token_id)
    special = set(tokenizer.all_special_ids)
    if not set(answer) - special:
        raise ValueError(
            f"{example.source} must have an answer of at least one token, got "
            f"{example.answer[:40]!r}."
        )
    return prompt, answer


def write_prompt(messages: Sequence[Message], tokenizer: Any, source: str) -> str:
    """Return a conversation as the model reads it when it is to answer.

    Parameters
    ----------
    messages : sequence of Message
        What was said so far.
    tokenizer : PreTrainedTokenizerBase
        Tokenizer, with its chat template if it has one.
    source : str
        Where the conversation comes from, such as ``"lima.jsonl:12"``.

    Returns
    -------
    str
        Up to where the answer begins, special tokens written out.

    Raises
    ------
    ValueError
        If the template refuses or leaves out a message.
    """
    text = _write(messages, tokenizer, source, add_generation_prompt=True)
    # Earlier answers may be shortened, as some templates do with thoughts.
    left = [m for m in messages if m.role != "assistant" and m.content.strip()]
    for message in left:
        if message.content.strip() not in text:
            raise ValueError(
                f"{source} must be a conversation that the model's chat template "
                f"writes out, which leaves out a message of the {message.role}: join "
                "it with the next one, or leave it out."
            )
    return text


def _write(
    messages: Sequence[Message], tokenizer: Any, source: str, **options: bool
) -> str:
    template = tokenizer.chat_template or PLAIN_TEMPLATE
    try:
        text: str = tokenizer.apply_chat_template(
            as_messages(messages), chat_template=template, tokenize=False, **options
        )
    except Exception as error:  # a template is a program, and may raise anything
        words = " ".join(str(error).split()) or type(error).__name__
        roles = ", ".join(message.role for message in messages)
        raise ValueError(
            f"{source} must be a conversation that the model's chat template takes, "
            f"got {roles}, of which it says: {words[:200].rstrip('.')}. Join messages "
            "that follow each other on one side, and put what the system says into the "
            "first of the user's."
        ) from error
    return text


def _tokenise(tokenizer: Any, text: str) -> list[int]:
    # The template has written the special tokens already.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _ended(tokens: list[int], end: int | None) -> list[int]:
    """Leave out what follows the last end token, where there is one."""
    if end not in tokens:
        return tokens
    return tokens[: len(tokens) - tokens[::-1].index(end)]


def collate(rows: Sequence[Row], pad_token_id: int) -> dict[str, Tensor]:
    """Put rows of different lengths into one batch, padded on the right.

    Parameters
    ----------
    rows : sequence of dict
        What `encode` returned.
    pad_token_id : int
        Token to pad with; it is not attended to and not learnt.

    Returns
    -------
    dict of str to Tensor
        `input_ids`, `attention_mask` and `labels` of shape (m, longest), and `index`
        of shape (m,).

    Examples
    --------
    >>> from fstat_torch.llama import collate
    >>> def row(index, *tokens):
    ...     mask = [1] * len(tokens)
    ...     return {
    ...         "input_ids": [*tokens], "labels": [*tokens],
    ...         "attention_mask": mask, "index": index,
    ...     }  # fmt: skip
    >>> batch = collate([row(4, 7, 8, 9), row(2, 5)], pad_token_id=0)
    >>> batch["input_ids"].tolist(), batch["labels"].tolist()
    ([[7, 8, 9], [5, 0, 0]], [[7, 8, 9], [5, -100, -100]])
    >>> batch["index"].tolist()
    [4, 2]
    """
    fill = {"input_ids": pad_token_id, "attention_mask": 0, "labels": IGNORED}
    batch = {
        name: torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row[name]) for row in rows],
            batch_first=True,
            padding_value=value,
        )
        for name, value in fill.items()
    }
    return batch | {"index": torch.tensor([row["index"] for row in rows])}
