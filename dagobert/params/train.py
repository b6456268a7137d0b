"""`train`: the recipe. Names are those of Hugging Face `TrainingArguments` and of BERT's configuration where they have one."""

from typing import Annotated, Literal

from pydantic import Field

from dagobert.params.base import Section


class TrainParams(Section):
    """Read by `train`."""

    seed: int = Field(ge=0, lt=2**32, description="seed of head initialisation, dropout and batch order")
    num_train_epochs: int = Field(ge=1, le=1000, description="passes over the training rows")
    learning_rate: float = Field(gt=0, le=1, description="peak learning rate of AdamW")
    weight_decay: float = Field(ge=0, le=1, description="AdamW weight decay, not applied to biases and LayerNorm")
    adam_beta1: float = Field(ge=0, lt=1, description="AdamW beta 1")
    adam_beta2: float = Field(ge=0, lt=1, description="AdamW beta 2")
    adam_epsilon: float = Field(gt=0, description="AdamW epsilon")
    max_grad_norm: float = Field(gt=0, description="gradient norm is clipped at this value")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        description="schedule after warm-up; constant has none"
    )
    warmup_steps: float = Field(
        ge=0, description="optimizer steps of warm-up (1 or more) or their share of all steps (below 1)"
    )
    train_batch_size: int = Field(ge=1, description="sequences in one optimizer step, however few fit into memory at once")
    train_batch_tokens: int | None = Field(
        ge=1, description="most tokens in one optimizer step instead of a number of sequences; null: train_batch_size counts"
    )
    tokens_per_batch: int = Field(
        ge=1, description="most tokens computed at once; larger batches are cut, with the same result"
    )
    train_sampling: Literal["uniform", "balanced"] = Field(
        description="uniform: each row once an epoch; balanced: rows drawn with replacement, each class equally often"
    )
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = Field(
        description="weight of each class in the loss: none, balanced (inverse to how often it occurs), or one number a class"
    )
    eval_strategy: Literal["epoch", "steps"] = Field(description="when to validate")
    eval_steps: int = Field(ge=1, description="optimizer steps between validations where eval_strategy is steps")
    metric_for_best_model: Literal["accuracy", "macro_f1", "loss"] = Field(
        description="validation figure that picks the best epoch"
    )
    load_best_model_at_end: bool = Field(description="publish the best validated weights; false: the last")
    early_stopping_patience: int | None = Field(
        ge=1, description="validations without improvement before stopping; null: never"
    )
    freeze: Literal["none", "encoder", "embeddings"] | Annotated[int, Field(ge=0)] = Field(
        description="what stays as it was: none, embeddings, encoder (head only), or n: embeddings and the first n layers"
    )
    layer_wise_lr_decay: float = Field(
        gt=0, le=1, description="a layer's learning rate is that of the layer above times this; 1: all alike"
    )
    reinit_layers: int = Field(ge=0, description="top layers that start from random numbers instead of the checkpoint")
    attention_probs_dropout_prob: float = Field(
        ge=0, lt=1, description="dropout of attention weights; above 0 is much slower on CPU"
    )
    hidden_dropout_prob: float = Field(ge=0, lt=1, description="dropout of hidden states in the encoder")
    classifier_dropout: float = Field(ge=0, lt=1, description="dropout before the classifier")
    label_smoothing_factor: float = Field(ge=0, lt=1, description="label smoothing of the training loss")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        description="auto: bf16 where the processor computes it natively, else fp32"
    )
    lora_r: int | None = Field(ge=1, description="rank of LoRA adapters (needs peft); null: train the weights themselves")
    lora_alpha: int = Field(ge=1, description="LoRA: the adapters' product counts alpha / rank times")
    gradient_checkpointing: bool = Field(description="compute layers again in the backward pass: less memory, a third slower")
    torch_compile: bool = Field(
        description="GPU, BERT: compile the layers for few fixed shapes, filled up with dummy sequences; minutes at the start"
    )
    save_steps: int = Field(ge=1, description="optimizer steps between checkpoints that a killed run goes on from")
    full_determinism: bool = Field(description="only kernels that give the same bytes every time")
    device: Literal["auto", "cpu", "cuda"] = Field(description="auto: the GPU where there is one; cuda: a GPU or an error")
    launcher: Literal["none", "torchrun"] = Field(
        description="none: one process; torchrun: several, each with a share of every step"
    )
    nnodes: int = Field(
        ge=1,
        description="machines that torchrun joins; above 1 each needs PET_NODE_RANK and PET_RDZV_ENDPOINT in its environment",
    )
    nproc_per_node: int = Field(ge=1, description="processes that torchrun starts here: one a GPU")
    threads: int | None = Field(ge=1, description="CPU threads; null: as many as cores. Another number gives other last bits")
