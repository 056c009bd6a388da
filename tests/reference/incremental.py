"""Losses of learners that go on to new classes, one example and one class after the other (LwF; LUCIR, CVPR 2019)."""

import numpy as np


def distillation(logits, before, known, temperature):
    total = 0.0
    for z, z_before in zip(logits, before):
        p = np.exp(z_before[known] / temperature)
        q = np.exp(z[known] / temperature)
        p, q = p / p.sum(), q / q.sum()
        total += sum(a * np.log(a / b) for a, b in zip(p, q))
    return temperature**2 * total / len(logits)


def angle(a, b):
    return a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)


def margin_ranking(scores, classes, known, new, margin, top):
    terms = []
    for s, c in zip(scores, classes):
        if c in known:
            hardest = sorted((s[j] for j in new), reverse=True)[:top]
            terms += [max(0.0, margin - s[c] + value) for value in hardest]
    return np.mean(terms) if terms else 0.0
