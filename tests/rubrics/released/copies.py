"""Small folders with the structure of the released judges' code and words of our own; none of it may run."""

from __future__ import annotations

from pathlib import Path

NEVER_RUN = 'import no_module_of_this_name\n\nraise SystemExit("a file of the copy has run")\n\n'

CARD = """# A judge

```bash
pip install judge
```

```python
not python at all
```

```python
LEVELS, WEIGHTS = ["superb", "fine", "awful"], [1.0, 0.5, 0.0]
turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How sound is it?"}]}]
text = processor.apply_chat_template(turn, add_generation_prompt=True) + "Its soundness is"
```
"""

PROMPTS = """STEMS: dict[str, str] = {
    "iqa": "Its soundness is",
    "iaa": "Its beauty is",
    "vqa": "The film's soundness is",
}
PROMPTS: dict[str, list[str]] = {
    "iqa": [
        "Is it sound?",
        "How sound is it?",
        "Tell how "
        "sound it is.",
    ],
    "iaa": ["Is it beautiful?"],
    "vqa": ["Is the film sound?"],
}
"""

Q_REALIGN = {
    "qalign/prompts.py": PROMPTS,
    "qalign/levels.py": 'DEFAULT_NAMES = ["superb", "fine", "awful"]\nDEFAULT_WEIGHTS = [1.0, 0.5, 0.0]\n',
    "qalign/infer.py": "def run(task):\n    return task.prompts[0]\n",
    "qalign/datasets.py": "def build(task):\n    return task.prompts[0], rng.choice(task.prompts)\n",
    "qalign/scorer.py": """def score(record, images, tok):
    content = "<image>" * len(images) + record["prompt"]
    return content, tok(" " + record["stem"].strip())
""",
}

MODELS = "t2v_metrics/models/vqascore_models"
VQASCORE = {
    f"{MODELS}/clip_t5_model.py": """default_question_template = 'Is "{}" to be seen? Say yes or no.'
default_answer_template = "Yes"


class Model:
    def forward(self, images, question_template: str = default_question_template, *, answer_template="Yes"):
        return question_template.format(images)
""",
    f"{MODELS}/other_model.py": """class Model:
    def forward(self, images, fps=None, question_template='Is it "{}"?', answer_template="yes"):
        return images

    def traced(self, images, question_template='Is it "{}"?', answer_template="yes", position="end"):
        question = question_template.format(images)
        return [{"role": "user", "content": [images, {"type": "text", "text": question}]}]
""",
}


def write_copy(folder: Path, files: dict[str, str]) -> Path:
    """The folder, with the files in it; Python begins with lines that fail if they run."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(NEVER_RUN + text if name.endswith(".py") else text, encoding="utf-8")
    return folder


def line_of(folder: Path, name: str, text: str) -> str:
    """The place of the one line of a file that has the text, as readings say it."""
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    [number] = [number for number, line in enumerate(lines, start=1) if text in line]
    return f"{name}, line {number}"
