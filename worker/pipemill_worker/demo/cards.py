"""The demo models' cards: what they are, what was measured, what they are not for."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
import transformers

from pipemill_worker.demo.training import Trained, folder_megabytes

_SENTIMENT: Final = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-classification
---

# pipemill demo: sentiment

Says whether an English review sentence is `POSITIVE` or `NEGATIVE`. A BERT of two layers with 8,000 byte-level
pieces of its own, blind to case, with up to 256 pieces of input, trained from scratch on rated snippets of film and
product reviews. It is here so that `pipemill demo` runs a trained model without a download.

**It is a demo, not for decisions.** More than one sentence in five is answered wrongly. Beyond films and consumer
electronics it guesses from the words it knows; irony, comparisons and negation over a distance escape it, neutral text
gets a label all the same, and its score is no calibrated probability. The texts are from before 2014, and whatever
leanings they have, it has.
"""

_GENERATOR: Final = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# pipemill demo: generator

Goes on with a text in the manner of film and product reviews. A Llama of two layers with 2,048 byte-level pieces of its
own and a context of 256 pieces, trained from scratch on review snippets. It is here so that `pipemill demo` can stream
text from a trained model without a download.

**It is a demo, not for decisions, and not for reading either.** What it writes has the sound of a review and seldom the
sense of one; it names films, people and products that have nothing to do with each other, and may repeat phrases of its
training text. It follows no instructions and has no chat template. The texts are from before 2014, and whatever
leanings they have, it has.
"""

_MEASURED: Final = """
## Measured

{table}

The training script wrote these figures. Held out is one snippet in ten, chosen by a hash of its text; nothing of it was
seen in training.{note}
"""

_NOTES: Final = {
    "sentiment": """ Accuracy counts the held-out snippets rated beyond ±0.5. The recipe was chosen on another tenth
of the data, which then went back into the training. A linear model over words and word pairs does a little better on so
little text: what a transformer is worth comes with pretraining, which this one has not had.""",
    "generator": """ The recipe was changed once after an earlier run had been measured, for smaller batches and
one more epoch.""",
}

_DATA: Final = """
## Data

Snippets with the mean rating of ten people each, from the data set of C.J. Hutto and E. Gilbert, "VADER: A Parsimonious
Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014 (Copyright (c) 2016 C.J. Hutto, MIT licence),
published in the source distribution of the Python package `vaderSentiment` 3.3.2, `additional_resources/`. The data
are not part of pipemill.

## Train it again

```sh
python -m pipemill_worker.demo.train --data DIR --out OUT --only {name} --seed {seed} --threads {threads}
```

`DIR` holds `movies.tsv` and `products.tsv`: tab-separated, with the header `rating`, `text`. The same seed, threads,
torch and kind of processor give the same weights; others give slightly different ones.
"""

#: The opening of each model's card.
_OPENINGS: Final = {"sentiment": _SENTIMENT, "generator": _GENERATOR}


def write_card(name: str, folder: Path, trained: Trained, seed: int) -> None:
    """Write the README.md of the model in `folder`; `name` is `sentiment` or `generator`."""
    figures = trained.figures | {
        "Weights": f"{trained.parameters:,}, fp32",
        "On disk": f"{folder_megabytes(folder):.1f} MB with the tokenizer",
        "Training": f"{trained.seconds / 60:.1f} CPU minutes with {torch.get_num_threads()} thread(s), seed {seed}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}",
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {label} | {figure} |" for label, figure in figures.items())])
    measured = _MEASURED.format(table=table, note=_NOTES[name])
    card = _OPENINGS[name] + measured + _DATA.format(name=name, seed=seed, threads=torch.get_num_threads())
    (folder / "README.md").write_text(card, encoding="utf-8")
