"""Fields that vLLM or OpenAI knows and this server does not take, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

_TEMPLATE = (
    "the chat template is the one the model was trained with, and the server's owner chooses it"
)
_GUIDED = "vLLM removed it; use structured_outputs or response_format."
_MEDIA = "this server takes text only."
_INTERNAL = "it belongs to the engine's own transfers between machines."
_POOLING = "vectors come as OpenAI gives them."
_ID = "the server names its requests itself; send your own name as the X-Request-Id header."

NOT_OFFERED: Mapping[str, str] = {
    "chat_template": f"{_TEMPLATE}.",
    "chat_template_kwargs": f"{_TEMPLATE}; so are its variables.",
    "prompt_embeds": "embeddings are loaded with code that must trust them; send text or tokens.",
    "mm_processor_kwargs": _MEDIA,
    "media_io_kwargs": _MEDIA,
    "mm_payload": _MEDIA,
    "return_mm_kwargs": _MEDIA,
    "audio": _MEDIA,
    "kv_transfer_params": _INTERNAL,
    "ec_transfer_params": _INTERNAL,
    "routed_experts_prompt_start": _INTERNAL,
    "return_token_offsets": "only vLLM's render routes answer it, and they are not offered.",
    "vllm_xargs": "it reaches into extensions of the engine, of which there are none here.",
    "request_id": _ID,
    "session_id": _ID,
    "priority": "the server sets it: offline batches wait for everyone else.",
    "use_beam_search": "each beam is a sequence of its own; ask for n answers instead.",
    "length_penalty": "it belongs to beam search, which is not offered.",
    "repetition_detection": "set max_tokens, or stop reading the stream.",
    "watermarking": "this server's engine has none.",
    "enable_response_messages": "it shows the engine's own form of the conversation.",
    "use_activation": _POOLING,
    "embed_dtype": _POOLING,
    "endianness": _POOLING,
    "padding": _POOLING,
    "best_of": "vLLM removed it; ask for n answers.",
    "suffix": "vLLM does not fill in between two texts.",
    "guided_json": _GUIDED,
    "guided_regex": _GUIDED,
    "guided_choice": _GUIDED,
    "guided_grammar": _GUIDED,
    "guided_decoding_backend": _GUIDED,
    "guided_whitespace_pattern": _GUIDED,
    "moderation": "nothing is judged here; ask a model that does.",
    "context_management": "a conversation is what the request holds; leave out what is too much.",
    "prompt_cache_retention": "the engine keeps prefixes for as long as it has room.",
    "functions": "OpenAI replaced it; use tools.",
    "function_call": "OpenAI replaced it; use tool_choice.",
    "web_search_options": "this server searches nothing.",
    "structural_tag": "use json, regex, choice or grammar.",
    "whitespace_pattern": "no grammar engine of this server reads it.",
    "background": "answers are not stored; use /v1/batches.",
    "previous_response_id": "answers are not stored; send the earlier turns in input.",
    "conversation": "answers are not stored; send the earlier turns in input.",
    "prompt": "prompts are not stored; send the text itself.",
    "previous_input_messages": "send the earlier turns in input.",
    "max_tool_calls": "this server calls no tools itself.",
}
"""The end of a sentence that begins "'field' is not offered: "."""
