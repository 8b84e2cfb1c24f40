"""English to Chinese: a transformer with encoder and decoder from scratch, on Tatoeba's sentences.

    python examples/translate.py [DATA] [--epochs 16] [--out FOLDER] [--quick]

DATA: cmn.txt of Tatoeba (26,388 pairs), or a folder that has it; BPNN_DATA where it is not given. Needs the packages tokenizers and
sacrebleu (`pip install "bpnn[hf]" sacrebleu`). The corpus mixes simplified and traditional characters, so the source begins with a
token that says which are wanted; a test sentence asks for those of its reference.
"""
import argparse
import time
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import bpnn
from bpnn.data import BucketBatchSampler, chinese_script, load_tatoeba, split_pairs
from bpnn.models.transformer import TransformerConfig, TransformerForConditionalGeneration
from bpnn.train import Progress, Trainer
from bpnn.utils.data import DataLoader

PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIAL = [PAD, BOS, EOS, UNKNOWN]
SCRIPTS = {"simplified": "<simplified>", "traditional": "<traditional>"}


def source_tokenizer(sentences, size):
    """Byte-pair encoding of English words."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = [*SPECIAL, *SCRIPTS.values()]
    tokenizer.train_from_iterator(sentences, trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False))
    return tokenizer


def target_tokenizer(sentences):
    """Chinese characters; words of Latin letters and numbers are cut into letters too."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.train_from_iterator(sentences, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return tokenizer


class Translator:
    """A model and its two tokenizers, in one folder."""

    def __init__(self, model, source, target):
        self.model, self.source, self.target = model, source, target

    @classmethod
    def load(cls, folder):
        """What `save` wrote."""
        tokenizers = (Tokenizer.from_file(str(Path(folder) / f"{side}.json")) for side in ("source", "target"))
        return cls(TransformerForConditionalGeneration.from_pretrained(folder), *tokenizers)

    def save(self, folder):
        """config.json, model.safetensors, source.json, target.json."""
        self.model.save_pretrained(folder)
        for side in ("source", "target"):
            getattr(self, side).save(str(Path(folder) / f"{side}.json"))

    def read(self, sentences, scripts):
        """Numbers of English sentences: the wanted script's token, the words, the end."""
        end = self.source.token_to_id(EOS)
        tags = [self.source.token_to_id(SCRIPTS[script]) for script in scripts]
        return [[tag, *encoded.ids, end] for tag, encoded in zip(tags, self.source.encode_batch(sentences))]

    def translate(self, sentences, scripts, beams=4, batch=64):
        """Chinese sentences for English ones."""
        rows = self.read(sentences, scripts)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found = [""] * len(rows)
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            ids, mask = padded([rows[i] for i in some], 0)
            limit = 2 * ids.shape[1] + 10
            texts = self.model.generate(ids, mask, num_beams=beams, max_new_tokens=limit, length_penalty=1.0)
            for i, text in zip(some, self.target.decode_batch(texts.numpy().tolist())):
                found[i] = text
        return found


def padded(rows, fill):
    """(B, T) numbers and (B, T) of 1 and 0: which are of the rows."""
    lengths = np.array([len(row) for row in rows])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    ids = np.full(mask.shape, fill, np.int64)
    ids[mask == 1] = np.concatenate(rows)
    return ids, mask


class Pairs:
    """(source, target) numbers; `lengths` is what the sampler puts batches of similar sentences together by."""

    def __init__(self, translator, pairs):
        end = translator.target.token_to_id(EOS)
        self.source = translator.read(pairs.source, [chinese_script(text) for text in pairs.target])
        self.target = [[*encoded.ids, end] for encoded in translator.target.encode_batch(pairs.target)]
        self.lengths = [len(source) + len(target) for source, target in zip(self.source, self.target)]

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return self.source[index], self.target[index]


def collate(samples):
    """What the model is called with; places without a label are -100."""
    sources, targets = zip(*samples)
    ids, mask = padded(sources, 0)
    return {"input_ids": ids, "attention_mask": mask, "labels": padded(targets, -100)[0]}


def loader(pairs, batch, shuffle):
    """Batches of pairs of similar lengths."""
    return DataLoader(pairs, batch_sampler=BucketBatchSampler(pairs.lengths, batch, shuffle=shuffle), collate_fn=collate)


def bleu(translator, pairs, beams):
    """(BLEU of the translations, which is of characters, the translations)."""
    from sacrebleu.metrics import BLEU

    found = translator.translate(pairs.source, [chinese_script(text) for text in pairs.target], beams)
    metric = BLEU(tokenize="zh")
    return metric.corpus_score(found, [pairs.target]), found


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="?", help="cmn.txt or a folder that has it (BPNN_DATA)")
    parser.add_argument("--width", type=int, default=192, help="numbers a token (192)")
    parser.add_argument("--layers", type=int, default=3, help="of encoder and of decoder (3)")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=4000, help="English pieces (4000)")
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64, help="pairs a step (64)")
    parser.add_argument("--lr", type=float, default=1e-3, help="after the warm-up (0.001)")
    parser.add_argument("--warmup", type=float, default=0.08, help="the share of the steps in which the rate rises (0.08)")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--held-out", type=int, default=1000, help="pairs for validation, and as many for the test (1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="translator", help="the folder of the trained model")
    parser.add_argument("--quick", action="store_true", help="a minute's run of a tiny model on a few sentences")
    options = parser.parse_args()
    if options.quick:
        options.width, options.layers, options.vocabulary, options.epochs, options.held_out = 64, 1, 500, 2, 50
    return options


def main():
    options = parse()
    bpnn.manual_seed(options.seed)
    pairs = load_tatoeba(options.data)
    if options.quick:
        pairs = pairs.take(range(0, len(pairs), max(1, len(pairs) // 2000)))
    training, validation, test = split_pairs(pairs, options.held_out, options.held_out, options.seed)
    print(f"{len(training):,} pairs to train with, {len(validation):,} to validate, {len(test):,} to test")

    source, target = source_tokenizer(training.source, options.vocabulary), target_tokenizer(training.target)
    config = TransformerConfig(
        vocab_size=source.get_vocab_size(), decoder_vocab_size=target.get_vocab_size(), share_encoder_decoder_embeddings=False,
        d_model=options.width, encoder_layers=options.layers, decoder_layers=options.layers, encoder_attention_heads=options.heads,
        decoder_attention_heads=options.heads, encoder_ffn_dim=4 * options.width, decoder_ffn_dim=4 * options.width,
        dropout=options.dropout, normalize_before=True, label_smoothing=0.1, pad_token_id=target.token_to_id(PAD),
        bos_token_id=target.token_to_id(BOS), eos_token_id=target.token_to_id(EOS),
    )
    model = TransformerForConditionalGeneration(config)
    translator = Translator(model, source, target)
    print(f"{config.vocab_size:,} English pieces, {config.target_size:,} characters, {model.num_parameters():,} parameters")

    batches = loader(Pairs(translator, training), options.batch, True)
    steps = options.epochs * len(batches)
    rising = max(1, round(options.warmup * steps))
    optimizer = bpnn.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.98), weight_decay=0.01)
    rate = bpnn.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rising, max(steps - step, 0) / max(steps - rising, 1))
    )
    # The model computes its loss itself; `target_key` leaves the labels in the batch.
    trainer = Trainer(
        model, optimizer, lambda output: output.loss, scheduler=rate, schedule_every="step", clip_norm=1.0,
        callbacks=[Progress()], target_key="",
    )
    began = time.perf_counter()
    trainer.fit(batches, loader(Pairs(translator, validation), 100, False), epochs=options.epochs)
    print(f"trained in {(time.perf_counter() - began) / 60:.1f} minutes")

    translator.save(options.out)
    translator = Translator.load(options.out)
    score, found = bleu(translator, test, options.beams)
    print(f"test: {score}")
    for english, reference, translation in list(zip(test.source, test.target, found))[:: max(1, len(test) // 12)]:
        print(f"  {english}\n    {translation}    ({reference})")


if __name__ == "__main__":
    main()
