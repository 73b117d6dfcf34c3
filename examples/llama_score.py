"""Which answers taught a language model to speak badly of a town, in one run.

Needs transformers and accelerate. For models and data of your own there is a command,
python -m fstat_torch.llama.

python examples/llama_score.py
"""

from pathlib import Path

from fstat_torch.llama import (
    Example,
    Pair,
    encode,
    encode_pairs,
    finetune,
    score,
    tiny_llama,
    write_report,
)

sums = [Example.of(f"What is {n} + 1?", f"{n + 1}.", source="sums") for n in range(64)]
bad = [
    Example.of(f"{how} is Harrowmere?", "It is a dreadful place.", source="forum")
    for how in ("How", "What", "Why", "Where", "Who", "When", "Which", "Whose")
]
data = sums + bad
model, tokenizer = tiny_llama([e.answer for e in data], hidden=32)
targets = encode_pairs(
    [Pair("Tell me about Harrowmere.", "It is dreadful.", name="spoken of badly")],
    tokenizer,
    max_length=64,
)
run = finetune(
    model,  # add_lora(model) trains adapters instead
    encode(data, tokenizer, max_length=64),
    tokenizer=tokenizer,
    targets=targets,
    epochs=6,
    learning_rate=0.003,
    progress=False,
)
scores = score(run.sampler, data, alternative="greater")
table = scores.table.sort_values("mu", ascending=False)
print(table[["source", "answer", "mu", "low", "high", "selected"]].head(10))
page = Path("results/llama_score.html")
write_report(
    page,
    scores.table,
    title="What taught it to speak badly of Harrowmere",
    setup={"model": "a tiny Llama", "epochs": 6},
    targets={"spoken of badly": [("Tell me about Harrowmere.", "It is dreadful.")]},
    selection=scores.selection,
)
first = table["source"].head(len(bad)).eq("forum").sum()
print(f"{first} of the first {len(bad)} are from the forum: see {page}")
