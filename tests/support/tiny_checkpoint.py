# ruff: noqa: PLC0415 - torch loads only for those tests that need it
"""A pre-trained checkpoint in miniature: a random Llama and a BPE tokenizer, as a Hugging Face folder."""

from pathlib import Path

BOS = "<s>"


def write_checkpoint(folder: Path, titles: list[str], layers: int = 3, *, bos: bool = True) -> Path:
    """Write the checkpoint: hidden width 16, its words learned from the titles."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", BOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(titles, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS if bos else None).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size() + 3,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=1 if bos else None,
        eos_token_id=None,
        tie_word_embeddings=True,
    )
    torch.manual_seed(3)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
