"""The sections of a run's specification: what to train, at which learning rate, what to track, for how long.

A tree of frozen, typed sections, with what each field does and what it is when not given. `engine.spec` reads, changes and checks it.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

import msgspec
from msgspec import Meta

Positive = Annotated[float, Meta(gt=0, le=1e12)]
LEAST_RATE = 1e-100
"""Of η: 2/η, and products with it, are numbers."""
NonNegative = Annotated[float, Meta(ge=0, le=1e12)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Count = Annotated[int, Meta(ge=1, le=10**9)]
CountOrNever = Annotated[int, Meta(ge=0, le=10**9)]
Widths = Annotated[tuple[Count, ...], Meta(min_length=0, max_length=32)]
Precision = Literal["float32", "float64"]
Products = Literal["float64", "float32x6"]
Activation = Literal["tanh", "swish", "relu", "gelu", "elu"]
Criterion = Literal["mse", "half_mse", "cross_entropy", "logistic"]
Prediction = Literal["generalized", "transported", "code", "full_cubic"]
Snapshot = Literal["theta", "eigenvectors", "constrained"]
Reading = Literal["train.accuracy", "test.loss", "test.accuracy"]
Shard = Literal["examples", "parameters", "both"]
SHARDS = get_args(Shard)

PREDICTIONS: tuple[str, ...] = get_args(Prediction)
CODE = "code"
"""Under `extra` in the Meta of a field: it says which code an engine executes, a `function`, where that lies, a `folder`, or what it is
called with, `arguments`. Whatever a specification has of these is trusted, shown and signed (`engine.record.trust`): declare it."""
Function = Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z", max_length=200, extra={CODE: "function"})]
"""`module:name` of a Python function."""
CodeFolder = Annotated[str, Meta(extra={CODE: "folder"})]
Start = Annotated[str, Meta(max_length=4096)]
"""A file or folder with the parameters to start from."""
Arguments = Annotated[
    dict[Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*\Z")], bool | int | float | str | tuple[bool | int | float | str, ...]],
    Meta(extra={CODE: "arguments"}),
]
MOST_METRICS = 32
Functions = Annotated[dict[Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*\Z", max_length=40)], Function], Meta(max_length=MOST_METRICS)]
"""Functions by a name that is given to each."""
TEXTS = ("sentences", "sst2")
"""Data sets of sentences, which become rows of tokens."""
FOLLOWED_FROM = 1.5
"""λη from which every eigenvalue of gradient descent is followed."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of the specification."""


class Data(Section, frozen=True, kw_only=True):
    """Which examples, and how they become inputs and targets."""

    name: Literal["fashion", "digits", "sentences", "chebyshev", "fashion_mnist", "cifar10", "sst2"]
    """The first four ship with eos; `eos data prepare` brings the others through tensorflow-datasets."""
    examples: Count = 1000
    """Training examples, the first in the order below."""
    order: Literal["by_class", "file"] = "by_class"
    """`by_class`: equal shares, the first of each class, class by class. `file`: whatever comes first in the files."""
    test_examples: CountOrNever = 0
    """Examples held out to test on, chosen by the same rule. 0 means none."""
    classes: tuple[int, ...] = ()
    """Labels to keep. Two labels make a binary problem with targets −1 and +1. Empty keeps every class."""
    standardize: Literal["mean_image", "global", "channel", "none"] = "mean_image"
    """Inputs less their mean image, or their mean, then divided by the standard deviation of all of them; or, channel by
    channel, less its mean and divided by its standard deviation. Always those of the training examples."""
    pad_to: CountOrNever = 0
    """Side in pixels that images are padded to with zeros. 0 leaves them as they are."""
    channels: CountOrNever = 0
    """Channels of the images: one of grey is repeated so often. 0 leaves them as they are."""
    vocab_file: str = ""
    """WordPiece vocabulary, one piece a line, [PAD] first. Empty takes the words of the training examples."""
    data_dir: str = ""
    """Folder of prepared data sets. Empty means $TFDS_DATA_DIR, else the platform's; a run keeps the folder it began with."""
    degree: Count = 4
    """Degree of the Chebyshev polynomial (`chebyshev` only)."""


class Mlp(Section, frozen=True, kw_only=True, tag_field="kind", tag="mlp"):
    """A fully connected network on the flattened input."""

    widths: Widths = (200, 200)
    """Width of each hidden layer."""
    activation: Activation = "swish"
    """What follows each hidden layer."""
    head_scale: Positive = 1.0
    """Factor on the initial weights of the last layer."""
    normalized: bool = False
    """Scale-invariant: LayerNorm without parameters after every hidden layer, and a head of unit norm, so that f(cθ) = f(θ)."""


class Cnn(Section, frozen=True, kw_only=True, tag_field="kind", tag="cnn"):
    """(3×3 convolution, activation, 2×2 average pool) for each width, then a dense layer."""

    widths: Widths = (32, 32)
    """Channels of each convolution."""
    activation: Activation = "swish"
    """What follows each convolution."""
    head_scale: Positive = 1.0
    """Factor on the initial weights of the last layer."""


class ResNet(Section, frozen=True, kw_only=True, tag_field="kind", tag="resnet"):
    """A residual network: a 3×3 stem, a stage of blocks for each width, mean pool, zero-initialised head. Two blocks in each of
    four stages make ResNet18."""

    widths: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=8)] = (16, 32, 64, 128)
    """Channels of each stage; every stage after the first halves the side of the maps."""
    blocks: Annotated[int, Meta(ge=1, le=64)] = 2
    """Blocks a stage, of two 3×3 convolutions each."""
    groups: Count = 16
    """Groups of GroupNorm; as many as there are channels where those are fewer."""
    activation: Activation = "swish"
    """What follows the stem, the first convolution of a block, and its sum."""


class Transformer(Section, frozen=True, kw_only=True, tag_field="kind", tag="transformer"):
    """Post-LayerNorm encoder with learned positions and a mean-pooled, zero-initialised head."""

    layers: Count = 2
    """Blocks of attention and a dense network."""
    hidden: Count = 64
    """Numbers a token; the dense network within a block has four times as many."""
    heads: Count = 2
    """Heads of attention, which share out the numbers of a token."""
    activation: Activation = "gelu"
    """What follows the first layer of the dense network."""


Model = Mlp | Cnn | ResNet | Transformer


class Network(Section, frozen=True, kw_only=True, tag_field="kind", tag="network"):
    """A flax model, a data set and a criterion: the full-batch training loss."""

    data: Data
    model: Model
    criterion: Criterion = "mse"
    """`mse` is ‖f−y‖² without ½ (the paper); `half_mse` has the ½ (Cohen et al.), so half the sharpness."""
    micro_batch: CountOrNever = 0
    """Examples a device pass; the full-batch result is accumulated. 0 takes them all at once."""
    rematerialize: bool = False
    """Keep only what enters a layer or block, and compute what is inside again where a derivative needs it: less memory, more time."""
    start: Start = ""
    """File with the parameters to start from, by their names: .safetensors, as a run's snapshot, .npz, as its checkpoint, or the folder
    of an orbax checkpoint. Empty takes what `seed` draws."""
    devices: CountOrNever = 1
    """Devices that share out the examples of a pass: of this machine, or of each process where several run. 0 takes all there are."""
    shard: Shard = "examples"
    """What several devices share out. `examples`: those of a pass, while θ and all vectors of as many numbers are on each. `parameters`:
    those vectors, each device with all examples. `both`: the memory of all devices together bounds the largest model."""


class Toy(Section, frozen=True, kw_only=True, tag_field="kind", tag="toy"):
    """Appendix B: L(x,y,z) = ½(2/η + √β·y)x² − (α/√β)y − z, on which gradient descent is the map (3) exactly."""

    alpha: Positive = 1.0
    """Progressive sharpening α."""
    beta: Positive = 1.0
    """Strength of self-stabilization β."""
    x0: Annotated[float, Meta(ge=-1e12, le=1e12)] = 0.1
    """The x to start from."""
    threshold: NonNegative = 0.0
    """The 2/η in the loss. 0 takes that of the learning rate; a fork to another η keeps that of the run it is from."""


class ToyK(Section, frozen=True, kw_only=True, tag_field="kind", tag="toy_k"):
    """Several directions at the edge at once: L(x,s) = ½xᵀ[(2/η)I + Y(s)]x − a·s + ½κ|s|², with any symmetric matrix as Y(s), linear in s.
    Gradient descent on it is the map (3_k) exactly; θ† is 0 and holds there by X†, in closed form."""

    covariance: Annotated[tuple[Positive, ...], Meta(min_length=2, max_length=6)] = (1.0, 0.5)
    """Variances of the oscillation along each direction: the eigenvalues of X†, as many as there are directions, k."""
    beta: Positive = 1.0
    """Strength of self-stabilization β: B⊥[M] = βM."""
    damping: NonNegative = 0.0
    """κ, which holds s back: without it the map gains energy, and x spirals outward."""
    x0: Annotated[tuple[Annotated[float, Meta(ge=-1e12, le=1e12)], ...], Meta(min_length=1, max_length=6)] = (0.1,)
    """The x to start from; one number is that of every direction."""
    y0: Annotated[tuple[Annotated[float, Meta(ge=-1e12, le=0)], ...], Meta(min_length=1, max_length=6)] = (0.0,)
    """The eigenvalues of Y to start from, one for each direction or for all: 0 at the edge, −3 where λ is 3 below 2/η."""
    threshold: NonNegative = 0.0
    """The 2/η in the loss. 0 takes that of the learning rate; a fork to another η keeps that of the run it is from."""


class Phase(Section, frozen=True, kw_only=True, tag_field="kind", tag="phase"):
    """No training: the map (3) and the flow (4) of the simplified system, from several starts X(0), Y(0) = 0."""

    alpha: Positive = 1.0
    """Progressive sharpening α."""
    beta: Positive = 1.0
    """Strength of self-stabilization β."""
    starts: Annotated[tuple[Positive, ...], Meta(min_length=1, max_length=8)] = (0.1, 0.4, 0.8)
    """X(0) of each orbit, in units of δ."""


class Own(Section, frozen=True, kw_only=True, tag_field="kind", tag="own"):
    """A loss of your own: what a Python function returns (`engine.from_loss`, `engine.from_flax`). `problem = "module:name"` is short
    for it. The engine that runs it imports the module, and nothing else does."""

    function: Function
    """`module:name` of the function to call."""
    folder: CodeFolder = ""
    """Folder of the module, looked at after Python's own path. Empty means where the command is given; a run keeps it."""
    arguments: Arguments = {}
    """What to call it with; the run's `seed` is added where it takes one."""
    start: Start = ""
    """File with the parameters to start from, by their names: .safetensors, as a run's snapshot, .npz, as its checkpoint, or the folder
    of an orbax checkpoint. Empty takes what the function gives."""
    self_test: bool = True
    """Test the loss before the run: its format, determinism, and three derivatives against differences. A kink at θ0 fails it."""
    readings: tuple[Reading, ...] = ()
    """Which of the problem's readings to record: `train.accuracy`, `test.loss`, `test.accuracy`. They need `mode = "sharpness"`."""


class Optimizer(Section, frozen=True, kw_only=True):
    """What every optimizer has."""

    learning_rate: Positive
    """η."""
    learning_rates: Annotated[tuple[Positive, ...], Meta(max_length=16)] = ()
    """Every η that the experiment is shown at; `eos reproduce` runs each of them. Empty means the one above."""
    schedule: Literal["constant", "inverse_sharpness"] = "constant"
    """`inverse_sharpness` sets η to 1/λ_max at every measurement; it needs `mode = "sharpness"` under [tracking]."""
    raises: Annotated[tuple[tuple[Count, Positive], ...], Meta(max_length=256)] = ()
    """[step, η] pairs: the learning rate becomes η at that step, in any phase."""
    weight_decay: NonNegative = 0.0
    """λ: adds (λ/2)‖θ‖² to the training loss, whichever the optimizer: no kind decays θ beside its gradient."""

    coupled: ClassVar[bool] = True
    """Whether θ† and its predictions are known for this kind of step, as `mode = "coupled"` takes."""
    unknown: ClassVar[Mapping[str, Any]] = {}
    """Fields of [tracking] for what is not known of it there, with the one value that they have then."""
    batched: ClassVar[bool] = False
    """Whether it is taken on batches, too: where it is known what is to be read then."""


class GradientDescent(Optimizer, frozen=True, kw_only=True, tag_field="kind", tag="gradient_descent"):
    """Gradient descent: θ ← θ − η∇L(θ), on the full batch or on batches, which makes it SGD. `kind` may be left out."""

    batched: ClassVar[bool] = True


class TrainingOptimizer(Optimizer, frozen=True, kw_only=True):
    """Every other optimizer: trained with `mode = "sharpness"`, read against an edge of its own."""

    coupled: ClassVar[bool] = False


class Momentum(Optimizer, frozen=True, kw_only=True, tag_field="kind", tag="momentum"):
    """Heavy-ball momentum: m ← βm + ∇L, θ ← θ − ηm (`optax.sgd`). Unstable above (2+2β)/η. θ† and its predictions are followed with
    `mode = "coupled"`; the flows, gauges, landscape and β_{s→t} of gradient descent are not."""

    batched: ClassVar[bool] = True

    beta: Share = 0.9
    """β. optax has no default for it."""
    nesterov: bool = False
    """Nesterov's form: θ ← θ − η(∇L + βm). Unstable above (2+2β)/((1+2β)η)."""
    ema: bool = False
    """Average gradients instead of adding them up: m ← βm + (1−β)∇L (`optax.ema` without debiasing). The edge is 1/(1−β) times higher."""

    unknown: ClassVar[Mapping[str, Any]] = {
        "flow": "none", "gauges_every": 0, "landscape_every": 0, "beta_every": 0, "seed_oscillation": False,
    }


class RmsProp(TrainingOptimizer, frozen=True, kw_only=True, tag_field="kind", tag="rmsprop"):
    """RMSProp: ν ← β₂ν + (1−β₂)∇L², θ ← θ − η∇L/(√ν̂+ε), ν̂ = ν/(1−β₂^t). Unstable where λ1(P^-½HP^-½) is above 2/η, P = diag(√ν̂+ε). It is
    `optax.scale_by_rms(eps_in_sqrt=False, bias_correction=True)`: optax itself has ε under the root and no bias correction by default."""

    beta2: Share = 0.99
    """β₂. optax's default is 0.9, with which P changes as fast as the oscillation and the ratio stays well above 1."""
    epsilon: Positive = 1e-8
    """ε. More where the loss comes near 0: there √ν̂ does too, and the sharpness is that of parameters with no gradient."""
    scalar: bool = False
    """One ν for all of θ: ν ← β₂ν + (1−β₂)‖∇L‖². Its central flow is known at the edge too."""


class Adam(TrainingOptimizer, frozen=True, kw_only=True, tag_field="kind", tag="adam"):
    """Adam: m ← β₁m + (1−β₁)∇L, ν as in RMSProp, θ ← θ − ηm̂/(√ν̂+ε) (`optax.adam`). Unstable where λ1(P^-½HP^-½) is above
    (2+2β₁)/((1−β₁)η), P = (1−β₁^t)·diag(√ν̂+ε). There is no decoupled weight decay: `weight_decay` is part of the loss."""

    beta1: Share = 0.9
    """β₁."""
    beta2: Share = 0.999
    """β₂."""
    epsilon: Positive = 1e-8
    """ε."""
    nesterov: bool = False
    """NAdam (`optax.nadam`): θ ← θ − η(β₁m̂ + (1−β₁)∇L̂)/(√ν̂+ε). The edge is 1/(1+2β₁) times that of Adam."""


class Sam(TrainingOptimizer, frozen=True, kw_only=True, tag_field="kind", tag="sam"):
    """Sharpness-aware minimisation: θ ← θ − η∇L(θ + ρ∇L/‖∇L‖), two gradients a step. Unstable above
    (‖∇L‖/2ρ)(√(1+8ρ/(η‖∇L‖))−1), which is below 2/η and moves with ‖∇L‖. `optax.contrib.sam` is the same with `reset_state` false."""

    radius: Positive = 0.05
    """ρ."""


class Sign(TrainingOptimizer, frozen=True, kw_only=True, tag_field="kind", tag="sign"):
    """Sign descent: θ ← θ − η·sign(∇L) (`optax.sign_sgd`), steepest descent in ℓ∞ without momentum. It has no edge for λ1: the loss falls
    exactly while the directional smoothness is below 2/η."""

    dual_scaled: bool = False
    """A step as long as the gradient: θ ← θ − η‖∇L‖₁·sign(∇L)."""


class Muon(TrainingOptimizer, frozen=True, kw_only=True, tag_field="kind", tag="muon"):
    """Spectral descent: for each matrix G = UΣVᵀ of the gradient θ ← θ − ηUVᵀ, the exact polar factor, by a decomposition. A vector is a
    matrix of one column, which gives it unit length; the kernel of a convolution has a row for each input of it. Muon as
    `optax.contrib.muon` has momentum, an approximate factor by Newton–Schulz, and Adam for what is no matrix: none of them here, where
    the directional smoothness, below 2/η while the loss falls, would not hold with them."""

    dual_scaled: bool = False
    """A step as long as the gradient: θ ← θ − η‖∇L‖_*·UVᵀ, with the sum of the nuclear norms of all matrices."""


class OwnOptimizer(TrainingOptimizer, frozen=True, kw_only=True, tag_field="kind", tag="own"):
    """An optimizer of your own: what a Python function returns, an optax transformation or `engine.from_optax(…)` of one, with the P and
    the edge that belong to it. The update is θ ← θ − η·(what it makes of ∇L): leave the learning rate and the sign to eos."""

    function: Function
    """`module:name` of the function to call."""
    folder: CodeFolder = ""
    """Folder of the module, looked at after Python's own path. Empty means where the command is given; a run keeps it."""
    arguments: Arguments = {}
    """What to call it with."""
    self_test: bool = True
    """Take two steps before the run: their formats, determinism, direction, P and edge. Steps that are random may fail it."""


AnyOptimizer = GradientDescent | Momentum | RmsProp | Adam | Sam | Sign | Muon | OwnOptimizer
"""Every optimizer there is, by `kind`."""


class Batch(Section, frozen=True, kw_only=True):
    """Mini-batches: each step is taken on a few examples, which hang on `seed` and the step alone. For gradient descent and momentum, with
    `mode = "sharpness"` under [tracking] (`eos help batches`)."""

    size: CountOrNever = 0
    """Examples of a step. 0 takes all of them in every step, and nothing else of this section is read."""
    replacement: bool = False
    """`false`: all examples are shuffled, cut into batches and gone through, then shuffled anew; those that make no whole batch sit a
    shuffle out. `true`: every example of every batch is drawn from all of them."""
    seed: Annotated[int, Meta(ge=0, lt=2**32)] | Literal["run"] = "run"
    """What the batches are drawn from; `run` takes the seed of the run, which the initial parameters are drawn from, too."""
    sharpness_every: CountOrNever = 256
    """Steps between readings of the batch sharpness, with the top eigenvalue beside it. 0 means never."""
    gni_every: CountOrNever = 256
    """Steps between readings of the gradient–noise interaction, which takes a Hessian–vector product on all examples for each batch that is
    drawn for it: up to 500 of them, or until it is known to 5 %. 0 means never."""
    samples: Annotated[int, Meta(ge=20, le=10**6)] = 1000
    """Most batches drawn for a reading of the batch sharpness."""
    tolerance: Annotated[float, Meta(gt=0, le=1)] = 0.005
    """Relative standard error at which that many are not needed."""


class Budget(Section, frozen=True, kw_only=True):
    """When to end. The first limit reached ends the run."""

    steps: Count = 5000
    """Gradient-descent steps in all. Ending before the edge gives the outcome "edge never reached"."""
    edge_steps: CountOrNever = 0
    """Steps after the edge. 0 sets no limit of its own."""
    loss_goal: NonNegative = 0.0
    """Training loss under which the run ends. 0 means never."""


class Approach(Section, frozen=True, kw_only=True):
    """How gradient descent is followed until the sharpness of a midpoint (θ_t+θ_{t+1})/2 reaches 2/η."""

    check_times: tuple[Positive, Positive, Positive] = (1.0, 0.1, 0.01)
    """ODE time ηt between sharpness checks: at first, once S ≥ 1/η, and once S ≥ 1.5/η."""


class Tracking(Section, frozen=True, kw_only=True):
    """What is followed beside gradient descent, in every mode."""

    eigenvalues: Annotated[int, Meta(ge=1, le=16)] = 2
    """Top eigenvalues of gradient descent to record, to begin with. 1, which `mode = "sharpness"` alone takes, is fastest where it is
    read at every step."""


class CoupledTracking(Tracking, frozen=True, kw_only=True, tag_field="mode", tag="coupled"):
    """The edge is sought, and θ†, the predictions and flows are followed from there. `mode` may be left out."""

    predictions: tuple[Prediction, ...] = ("generalized", "transported", "code")
    """Forms of the predicted dynamics to advance. `full_cubic` costs a third derivative a step."""
    flow: bool | Literal["gradient", "central", "both", "none"] = True
    """Follow a flow from the edge on: `gradient` flow, which true means too; the `central` flow of gradient descent, which its oscillation
    holds at the edge; `both`; or `none`, as with false. Each substep of the central flow takes k(k+1)/2 third derivatives with k directions
    at the edge."""
    flow_start: Literal["constrained", "descent"] = "constrained"
    """Where a flow starts there: `constrained` at θ†_0, the projection of gradient descent's θ onto the stable set; `descent` at
    that θ itself, as in the authors' code."""
    flow_sharpness_every: Count = 1
    """Steps between sharpness measurements of gradient flow."""
    central_substeps: Annotated[int, Meta(ge=2, le=64)] = 2
    """Euler substeps that a step of the central flow is made of; with one it would be unstable itself."""
    anchor_every: CountOrNever = 0
    """Steps between re-anchorings of every prediction to the true displacement. 0 means only when asked."""
    anchor_lost: bool = False
    """Re-anchor a prediction when it has left validity (not finite, or far outside the orbit)."""
    horizon_tolerance: Positive = 0.25
    """A prediction's horizon ends when its |x⋆| is off by more than this fraction of δ, or of |x| where larger."""
    hypothesis: Positive = 0.1
    """The c of Theorem 1: it claims nothing where |x⋆| < cδ."""
    landscape_every: CountOrNever = 50
    """Steps between samples of the loss along u, F_t, and in the plane of u and ∇S⊥. 0 means never."""
    beta_every: CountOrNever = 0
    """Steps between the starts s of β_{s→t}, from which (5) is summed. 0 leaves (5) out."""
    beta_window: Annotated[int, Meta(ge=1, le=1000)] = 20
    """Starts followed at once; each costs a Hessian–vector product a step."""
    max_eigenvalues: Annotated[int, Meta(ge=2, le=16)] = 8
    """Most eigenvalues to record: more are followed while the smallest is above 1.5/η. Up to `eigenvalues`, the number stays."""
    eigen_tolerance: Annotated[float, Meta(gt=0, le=0.1)] = 1e-4
    """Largest relative residual ‖Hu−Su‖/S of a top eigenpair at θ†."""
    steps_per_call: Literal["auto", "one", "many"] = "auto"
    """Coupled steps in one compiled call. `one`: out of parts that are compiled each for itself, between which the host waits. `many`: as
    many as a tenth of a second takes, as one program that compiles longer. `auto`: many on an accelerator, which would wait for the host
    longer than it computes, and one on a CPU; many everywhere with up to 64 parameters."""
    audit_every: CountOrNever = 50
    """Steps between audits of the top eigenpairs from fresh random starts, on every trajectory. 0 means never; each looks around every
    fourth step all the same (`engine.curvature.guards`)."""
    max_projections: Count = 8
    """Linearised projections a step before giving up on the constraint tolerances."""
    sharpness_tolerance: Positive = 1e-5
    """Largest |S(θ†) − 2/η|·η/2 after projection."""
    gradient_tolerance: Positive = 1e-6
    """Largest |∇L·u| / ‖∇L‖ at θ† after projection."""
    second_eigenvalue_limit: Positive = 1.9
    """λ2(θ†)·η from which Assumption 2 counts as failed, and from which a further direction is at the edge."""
    on_second_eigenvalue: Literal["follow", "stop", "gradient_descent", "keep"] = "follow"
    """When it fails: `follow` θ† on with every direction at the edge, up to `max_eigenvalues`; `stop` the run, as the paper's theory ends
    there; go on with `gradient_descent` and its eigenvalues alone; or `keep` to θ† with one direction."""
    seed_oscillation: bool = False
    """Move gradient descent's θ by σ along each direction in which an oscillation of that size is predicted and none has begun: it then
    swings at once, where in float64 it would take hundreds of steps to grow out of rounding. This changes the run that is measured."""
    gauges_every: CountOrNever = 50
    """Steps between measurements of the gauges of Appendix E that take third and fourth derivatives. 0 means never."""
    rho_iterations: Annotated[int, Meta(ge=1, le=1000)] = 20
    """Most power iterations from each start for each of ρ3 and ρ4, and as many more from the best of them."""
    rho_starts: Annotated[int, Meta(ge=1, le=100)] = 4
    """Starts of these power iterations: u, ∇S⊥, then random vectors. More of them miss less; ρ3 and ρ4 stay lower bounds."""

    @property
    def flows(self) -> tuple[str, ...]:
        """The flows that are followed, by the names of their trajectories."""
        gradient, central = self.flow in (True, "gradient", "both"), self.flow in ("central", "both")
        return ("flow",) * gradient + ("central",) * central

    @property
    def eigenvalue_columns(self) -> int:
        """Eigenvalues that a run has columns for."""
        return max(self.eigenvalues, self.max_eigenvalues)


class SharpnessTracking(Tracking, frozen=True, kw_only=True, tag_field="mode", tag="sharpness"):
    """Nothing is followed: gradient descent trains, and its sharpness is read now and then (Figure 6)."""

    sharpness_every: Count = 40
    """Steps between readings of sharpness, accuracy and test loss."""
    sharpness_examples: CountOrNever = 0
    """Training examples that the sharpness is read on: the first of them. 0 takes all."""
    central_from: CountOrNever = 0
    """Step from which the central flow of RMSProp is followed beside it, from where that is then. 0 means never. With `scalar = true` it is
    followed at the edge too; else it ends there, and is experimental."""

    # Not settings: what is true of this mode of what whoever has any run asks for.
    predictions: ClassVar[tuple[Prediction, ...]] = ()
    anchor_every: ClassVar[int] = 0
    landscape_every: ClassVar[int] = 0
    gauges_every: ClassVar[int] = 0
    hypothesis: ClassVar[float] = math.inf
    second_eigenvalue_limit: ClassVar[float] = math.inf


AnyTracking = CoupledTracking | SharpnessTracking
"""Every mode of tracking there is."""


class Precisions(Section, frozen=True, kw_only=True):
    """Number formats by part."""

    approach: Precision = "float32"
    """Parameters and gradients up to the edge."""
    edge: Precision = "float64"
    """Parameters and gradients from the edge on."""
    curvature: Precision = "float32"
    """Hessian–vector products and ∇S."""
    products: Products = "float64"
    """How products of matrices, and convolutions, are computed where the loss and its derivatives are in float64. `float64`: so.
    `float32x6`: each as the sum of six float32 products of parts of its numbers, to some 1e-11 of it, for cards on which float64 is slow.
    All else that is in float64 stays so."""


class Metrics(Section, frozen=True, kw_only=True):
    """Quantities of your own, each a column `metric.NAME`. `metrics = ["module:name"]` is short for it. The engine that runs them imports
    their modules, and nothing else does."""

    functions: Functions = {}
    """By its column's name, `module:name` of a function of an `engine.MetricContext` that gives a number."""
    every: Count = 1
    """Steps between values; the column is NaN between. Each value ends a stretch of steps that are computed in one go."""
    folder: CodeFolder = ""
    """Folder of the modules, looked at after Python's own path. Empty means where the command is given; a run keeps it."""


class Recording(Section, frozen=True, kw_only=True):
    """What is written, beyond one row a step."""

    checkpoint_seconds: Positive = 20.0
    """Wall-clock seconds between checkpoints; more where one takes over a twentieth of that."""
    keep_checkpoints: Annotated[int, Meta(ge=1, le=100)] = 3
    """Checkpoints that a run keeps, the newest."""
    snapshots_every: CountOrNever = 0
    """Steps between snapshots, `snapshots/step-N.safetensors`, from step 0 on; all are kept. 0 means never."""
    snapshots: Annotated[tuple[Snapshot, ...], Meta(min_length=1)] = ("theta",)
    """What a snapshot holds, a tensor for each parameter: `theta`, the parameters; `eigenvectors`, the top ones of ∇²L there, as many as
    `tracking.eigenvalues`, solved for in Hessian–vector products; `constrained`, θ†, at the edge."""
    projections: Annotated[int, Meta(ge=0, le=64)] = 0
    """Random directions of ±1 that θ is projected on, each a column `projection.N`: θ's path without its disk space, for the mean of
    (r·v)² over them is about ‖v‖². They are the same for every run with as many parameters. 0 means none."""
    projections_every: Count = 1
    """Steps between projections; the columns are NaN between. Each ends a stretch of steps that are computed in one go."""


PresetName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,47}\Z")]
"""Letters, digits, `.`, `_` and `-`."""


class RunSpec(Section, frozen=True, kw_only=True):
    """Everything that determines a run."""

    name: PresetName
    """The preset's name: letters, digits, `.`, `_` and `-`. That of its file where the file gives none."""
    title: Annotated[str, Meta(max_length=80)] = ""
    """What it is, in a few words."""
    shows: Annotated[str, Meta(max_length=600)] = ""
    """What to see in it, in a sentence or two."""
    takes: Annotated[str, Meta(max_length=120)] = ""
    """How long it takes, and on what."""
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 0
    """What the initial parameters are drawn from, and the random vectors of the solver."""
    problem: Network | Toy | ToyK | Phase | Own
    optimizer: AnyOptimizer
    batch: Batch = Batch()
    budget: Budget = Budget()
    approach: Approach = Approach()
    tracking: AnyTracking = CoupledTracking()
    precision: Precisions = Precisions()
    metrics: Metrics = Metrics()
    recording: Recording = Recording()

    @property
    def batch_seed(self) -> int:
        """What batches are drawn from."""
        return self.seed if self.batch.seed == "run" else self.batch.seed

    @property
    def rematerializes(self) -> bool:
        """Whether memory goes before time."""
        return isinstance(self.problem, Network) and self.problem.rematerialize

    @property
    def computes_in_float64(self) -> bool:
        """Whether the loss or a derivative of it is computed in float64 at some time."""
        at_edge = isinstance(self.tracking, CoupledTracking) and self.precision.edge == "float64"
        return not isinstance(self.problem, Phase) and (at_edge or "float64" in (self.precision.approach, self.precision.curvature))


LEFT_OUT: dict[str, type[Section]] = {"optimizer": GradientDescent, "tracking": CoupledTracking}
"""Of which kind a section of a specification is where it does not say."""
