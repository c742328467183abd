"""Small folders with the structure of the code of released models that write, and words of our own."""

from __future__ import annotations

from iqa_core.rubrics.released import mr_iqa, mr_iqa_2, q_insight

ANSWER = "Say it in <answer> </answer>."
THINK = "Muse in <think> </think>. "
WORDS = "How sound is it, from 1 to 5?"


def example(prompt: str, template: str, asked: str, limit: int) -> str:
    """A block of VisualQuality-R1's page."""
    return f"""```python
def score(paths):
    PROMPT = (
        "{prompt}"
    )
    TEMPLATE = "{template}"
    turn = {{"role": "user", "content": [{{'type': 'image', 'image': paths}}, {{"type": "text", "text": {asked}}}]}}
    text = processor.apply_chat_template(turn, tokenize=False, add_generation_prompt=True, add_vision_id=True)
    return model.generate(**text, use_cache=True, max_new_tokens={limit}, do_sample=True, top_k=50, top_p=1)
```
"""


PAGE = "\n".join(
    [
        "# A model\n",
        example(WORDS, "{Question} " + ANSWER, "TEMPLATE.format(Question=PROMPT)", 300),
        example(f"{WORDS} {THINK}{ANSWER}", "of no use", "PROMPT", 900),
        example(WORDS, "{Question} " + THINK + ANSWER, "TEMPLATE.format(Question=PROMPT)", 300),
        example("of no use", "of no use", "prompt", 100),
    ]
)
VISUALQUALITY_R1 = {"README.md": PAGE}

DEMONSTRATION = """SYSTEM_PROMPT = (
    "You muse in <think> </think>, "
    "and say it in <answer> </answer>."
)
template = "of no use"
SCORE_QUESTION_PROMPT = 'How sound is it, from 1 to 5? Write {"rating": number}.'
message = [
    {"role": "system", "content": [{"type": "text", "text": SYSTEM_PROMPT}]},
    {"role": "user", "content": [{"type": "text", "text": SCORE_QUESTION_PROMPT}, {"type": "image", "image": path}]},
]
text = [processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)]
config = GenerationConfig(do_sample=True, temperature=1.0, top_k=40, top_p=0.9, max_new_tokens=700)
model.generate(**inputs, generation_config=config, use_cache=True)
"""
Q_INSIGHT_TRAINING = """SYSTEM_PROMPT = "In training you muse in <think> </think>, and say it in <answer> </answer>."
SCORE_QUESTION_PROMPT = 'How sound was it, from 1 to 5? Write {"rating": number}.'


def item(prompt_text):
    return [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM_PROMPT}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt_text}]},
    ]
"""
Q_INSIGHT = {q_insight.USE: DEMONSTRATION, q_insight.TRAINING: Q_INSIGHT_TRAINING}

EVALUATION = """NON_THINKING_PROMPT = "How sound is it, from 1 to 5? Say it in <answer> </answer>."
THINKING_SYSTEM_PROMPT = "You muse in <thinking> </thinking>, and say it in <answer> </answer>."
THINKING_PROMPT = 'How sound is it, from 1 to 5? Write {"rating": number}.'
PROMPT = NON_THINKING_PROMPT


def prompt_config(mode):
    if mode == "non_thinking":
        return None, NON_THINKING_PROMPT
    return THINKING_SYSTEM_PROMPT, THINKING_PROMPT


def turns(path, system_prompt, user_prompt):
    system = {"role": "system", "content": system_prompt}
    return [system, {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": user_prompt}]}]


parser.add_argument("--max_new_tokens", type=int, default=60)
parser.add_argument("--temperature", type=float, default=0.0)
parser.add_argument("--top_p", type=float, default=1.0)
"""
MR_IQA_TRAINING = """NON_THINKING_SYSTEM_PROMPT = "You say nothing but the number in <answer> </answer>."
NON_THINKING_USER_PROMPT = "How sound was it, from 1 to 5? Say it in <answer> </answer>."
"""
MR_IQA = {
    mr_iqa.USE: EVALUATION,
    mr_iqa.TRAINING: MR_IQA_TRAINING,
    mr_iqa.ONE_IMAGE: 'limit = 200 if flags.prompt_mode == "thinking" else 60\n',
}
OLDER_MR_IQA = {
    mr_iqa.USE: """PROMPT = "How sound is it, from 1.00 to 5.00? Say it in <answer> </answer>."
turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
parser.add_argument("--max_new_tokens", type=int, default=60)
parser.add_argument("--temperature", type=float, default=0.0)
parser.add_argument("--top_p", type=float, default=1.0)
""",
    mr_iqa.TRAINING: MR_IQA_TRAINING.replace("NON_THINKING_", ""),
}

CONTRACT = """ENABLE_THINKING = False
SYSTEM_PROMPT = "You write JSON."
if ACTOR_SCHEMA == REASONING_EVIDENCE_SOLUTION_RATING_ACTOR_SCHEMA:
    VERSION = "of no use"
    USER_PROMPT_TEXT = (
        'Write {"reasoning": {"seen": text, "mended": text}, '
        '"mark": "number"}, with a number from 1.00 to 5.00.'
    )
elif ACTOR_SCHEMA == REASONS_RATING_ACTOR_SCHEMA:
    USER_PROMPT_TEXT = "of no use"
else:
    USER_PROMPT_TEXT = "of no use either"


def training(images):
    return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": TRAINING_USER_PROMPT}]


def evaluation(path):
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": USER_PROMPT_TEXT}]}]
"""
MR_IQA_2 = {
    mr_iqa_2.WORDS: CONTRACT,
    mr_iqa_2.FIELDS: 'REASONING_RATING_FIELDS = ("reasoning", "mark")\nREASONING_FIELDS = ("seen", "mended")\n',
    mr_iqa_2.USE: """parser.add_argument("--max_new_tokens", type=limit, default=250)
parser.add_argument("--temperature", type=float, default=0.0)
parser.add_argument("--top_p", type=float, default=1.0)
parser.add_argument("--top_k", type=int, default=20)
parser.add_argument("--repetition_penalty", type=float, default=1.0)
parser.add_argument("--presence_penalty", type=float, default=1.5)
parser.add_argument("--max_pixels", type=int, default=196608)
""",
}
