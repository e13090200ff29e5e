"""Gradient descent on a two-layer network by the definition: one loop over steps, neurons and
samples.
"""

import numpy as np


def descend(weight, head, x, y, lr, steps):
    """Weights after `steps` steps on (1/n) Σ log(1 + exp(−y f(x))), y = ±1; written without vectors
    over samples.
    """
    weight = np.array(weight, dtype=np.float64)
    n = len(x)
    for _ in range(steps):
        gradient = np.zeros_like(weight)
        for i in range(n):
            f = sum(head[j] * max(0.0, float(weight[j] @ x[i])) for j in range(len(head)))
            g = 1 / (1 + np.exp(y[i] * f))
            for j in range(len(head)):
                if weight[j] @ x[i] > 0:
                    gradient[j] -= g * y[i] * head[j] * x[i] / n
        weight = weight - lr * gradient
    return weight
