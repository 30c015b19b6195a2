"""The commands by name, and what `flowcraft` says of them: data alone, for whoever must not wait for a parser."""

ABOUT = """\
Run pipelines of language-model stages written in YAML.

Simple stages go to a cheap model, hard ones to a strong model, by the rules
in settings.yaml."""

# name -> (place, what `--help` says); the modules are imported only when their command is used
COMMANDS = {
    "run": ("flowcraft.cli.run:run", "Run a pipeline."),
    "resume": ("flowcraft.cli.run:resume", "Go on with a run after a crash, Ctrl-C or failure."),
    "approve": ("flowcraft.cli.decide:approve", "Approve what a run waits for, and go on."),
    "reject": ("flowcraft.cli.decide:reject", "Reject what a run waits for."),
    "runs": ("flowcraft.cli.runs:runs", "List the runs that are kept here."),
    "show": ("flowcraft.cli.runs:show", "Show a run, or one stage with its prompts and answers."),
    "why": ("flowcraft.cli.why:why", "Say why a stage ran, was cached, skipped or rejected."),
    "cost": ("flowcraft.cli.why:cost", "Show what a run has cost, and would have cost."),
    "export": ("flowcraft.cli.runs:export", "Print everything that is kept of a run as JSON."),
    "prune": ("flowcraft.cli.runs:prune", "Delete old runs."),
    "db": ("flowcraft.cli.runs:db", "Check the database of runs."),
    "plan": ("flowcraft.cli.plan:plan", "Show what would run, who answers and what it may cost."),
    "graph": ("flowcraft.cli.graph:graph", "Draw a pipeline as Mermaid or DOT."),
    "test": ("flowcraft.cli.test:test", "Run *.test.yaml files with scripted answers."),
    "validate": ("flowcraft.cli.check:validate", "Check pipelines and settings, without any call."),
    "chat": ("flowcraft.cli.chat:chat", "Ask a model one question."),
    "models": ("flowcraft.cli.models:models", "List the models that can be used; fetch the embedded one."),
    "auth": ("flowcraft.cli.auth:auth", "Sign in to Qwen and out; see which credentials are used."),
    "settings": ("flowcraft.cli.models:settings", "Show the settings in force and where each comes from."),
    "schema": ("flowcraft.cli.check:schema", "Print the JSON Schema of pipelines or settings."),
    "init": ("flowcraft.cli.init:init", "Write a commented settings.yaml and a first pipeline."),
    "completion": ("flowcraft.cli.init:completion", "Print the shell completion script."),
}
