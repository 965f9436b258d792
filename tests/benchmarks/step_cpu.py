"""How fast the training step is on the CPU, against the textbook step: python tests/benchmarks/step_cpu.py --help"""

import argparse

import torch
from peers import images, model, our_step, textbook_step
from timing import alternate, header, table, warm_up

from nla_cyclegan import StepConfig

OURS = {
    "step fp32": StepConfig(),
    "step bf16": StepConfig(precision="bf16"),
    "step bf16 NHWC": StepConfig(precision="bf16", channels_last=True),
}
BOOKS = {"textbook fp32": False, "textbook bf16": True}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Seconds of a training step on the CPU, in turns with the textbook step (one network call at a time).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--channels", type=int, default=64, help="base channels of all networks")
    parser.add_argument("--blocks", type=int, default=9, help="blocks of a generator; the middle one is non-local")
    parser.add_argument("--batch", type=int, default=1, help="image pairs of a step")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each kind")
    parser.add_argument("--only", nargs="+", choices=[*BOOKS, *OURS], default=[*BOOKS, *OURS], help="kinds of steps")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cpu")
    print(header(device))
    print(f"{args.size} px, {args.channels} channels, {args.blocks} blocks, batch {args.batch}", flush=True)

    networks = model(args.channels, args.blocks, (args.blocks // 2,) if args.blocks else ())
    a, b = images(args.batch, args.size, device)
    steps = {name: textbook_step(networks, a, b, bf16=bf16) for name, bf16 in BOOKS.items() if name in args.only}
    steps |= {name: our_step(networks, config, a, b) for name, config in OURS.items() if name in args.only}
    warm_up(steps, 2, device)
    timings = alternate(steps, args.repeats, device)
    print(table(timings, against=[name for name in BOOKS if name in args.only]))


if __name__ == "__main__":
    main()
