"""Makes Tiger-Nano from nothing: corpus, tokenizer, training, evaluation, question lists.

Job: the one entry point; run `python make.py` in a fresh virtual environment.
Does not know: how any of the steps is done.
"""

import argparse
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

from corpus import wrong_markers
from evaluate import evaluate, write_curve_picture, write_questions, write_report
from tokenization import save_tokenizer, train_tokenizer
from train import train


def main():
    here = Path(__file__).resolve().parent
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--steps", type=int, default=2200)
    p.add_argument("--rows", type=int, default=8, help="rows of 256 tokens in a batch")
    p.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    p.add_argument("--fall", type=float, default=1 / 3, help="last part of the steps, in which the rate falls to zero")
    p.add_argument("--vocab", type=int, default=2048)
    p.add_argument("--hidden", type=int, default=256)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--ffn", type=int, default=704)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--save-every", type=int, default=0, help="steps between safety checkpoints")
    p.add_argument("--resume", action="store_true", help="go on from the last safety checkpoint")
    p.add_argument("--begin-from", type=Path, help="checkpoint folder whose weights and tokenizer training begins with")
    p.add_argument("--out", type=Path, default=here, help="folder for everything that is written")
    p.add_argument("--evaluate-only", action="store_true", help="judge the checkpoint that is there")
    args = p.parse_args()

    torch.set_num_threads(args.threads)
    bad = wrong_markers()
    if bad:
        sys.exit(f"{len(bad)} answers break their style rule, such as {bad[0]}")
    folder = args.out / "checkpoint"
    folder.mkdir(parents=True, exist_ok=True)
    if not args.evaluate_only:
        if args.begin_from:
            tok = Tokenizer.from_file(str(args.begin_from / "tokenizer.json"))
        else:
            tok = train_tokenizer(random.Random(args.seed), args.vocab)
        save_tokenizer(tok, folder, 2048)
        train(tok, args, folder, args.out / "curve.csv")
    write_curve_picture(args.out / "curve.csv", args.out / "curve.png")
    write_questions(args.out / "questions.json", args.seed)
    results = evaluate(folder, args.seed)
    write_report(results, args.out)


if __name__ == "__main__":
    main()
