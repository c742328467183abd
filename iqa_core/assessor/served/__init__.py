"""Assessors whose answers a server of OpenAI's chat completions writes, such as vLLM or SGLang."""
