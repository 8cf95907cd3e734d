"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (tag, name = "", text = "") => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== "") made.textContent = text;
    return made;
  };
  const parts = (into, ...pieces) => {
    into.replaceChildren(...pieces.flat(2).map((piece) => (piece instanceof Node ? piece : String(piece))));
    return into;
  };
  const visible = (text) => text.replaceAll("\r", "").replaceAll("\n", "↵").replaceAll("\t", "⇥");
  const short = (text) => (visible(text).length > 160 ? `${visible(text).slice(0, 159)}…` : visible(text));
  const code = (text) => make("code", "", text);
  const dotted = (text) => visible(text).replace(/^ +| +$/g, (spaces) => "·".repeat(spaces.length));
  const percent = (share) => (share >= 0.995 && share < 1 ? ">99" : share > 0 && share < 0.005 ? "<1" : Math.round(share * 100)) + " %";
  const ms = (value) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)) + " ms";
  const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

  // Tokens: those with a text are shown by it, the others by their name.
  const isMark = (id) => id < data.num_marks;
  const spelled = (id) => (isMark(id) ? data.tokens[id].replace(/^<\|?|\|?>$/g, "") : dotted(data.tokens[id]));

  // Entropy in nats from which a token is drawn as unsure: its probability is spread over about 50 tokens.
  const UNSURE = 4;
  const heat = (nats) => Math.min(1, nats / UNSURE).toFixed(3);

  const frames = [];
  data.canvases.forEach((canvas, at) => {
    if (canvas.steps.length) frames.push({ kind: "start", canvas: at, step: 0 });
    canvas.steps.forEach((_, step) => frames.push({ kind: "step", canvas: at, step }));
  });
  const lastCanvas = frames.length ? frames[frames.length - 1] : { canvas: -1, step: 0 };
  frames.push({ kind: "answer", canvas: lastCanvas.canvas, step: lastCanvas.step });
  let current = 0;

  // Header.
  const { outcome, place, model } = data;
  byId("place").append(place.file, make("span", "", `:${place.line}:${place.column}`));
  const worth = data.is_calibrated ? `${percent(outcome.score)} likely to be right` : `score ${outcome.score.toFixed(2)}, not calibrated`;
  const work = outcome.steps ? plural(outcome.steps, "denoising step") : `${outcome.forwards} ${outcome.forwards === 1 ? "pass" : "passes"} of the model`;
  const asked = `${work}, ${ms(data.timings.total ?? 0)}`;
  const best = data.candidates.find((candidate) => candidate.score > 0);
  const silence = best
    ? [" The best candidate, ", code(visible(best.text)), `, has ${percent(best.score)}; this model shows an answer from ${percent(data.threshold)}.`]
    : [
        data.candidates.some((candidate) => candidate.verdict === "unjudged")
          ? " Time ran out before a candidate was judged."
          : data.candidates.length ? " Every candidate would add syntax errors." : " There was no candidate.",
      ];
  parts(
    byId("summary"),
    outcome.text
      ? [make("span", "good", "Shown: "), code(visible(outcome.text)), ` – ${worth}; ${percent(data.threshold)} is enough to be shown. `]
      : [make("b", "", "Nothing is shown."), silence, " "],
    `${asked} on ${model.device}, ${model.description}.`,
  );
  const notice = [];
  if (data.num_left_out) notice.push(`${plural(data.num_left_out, "step")} of this run ${data.num_left_out === 1 ? "is" : "are"} left out: the recording would be too large.`);
  if (!data.canvases.length && !data.writings.some((writing) => writing.passes.length)) {
    notice.push(`The model wrote nothing${outcome.finish === "deadline" ? ": time ran out" : ""}.`);
  }
  byId("notice").textContent = notice.join(" ");
  byId("notice").hidden = !notice.length;

  // The text.
  const source = byId("source");
  const hole = make("span", "hole");
  const covered = make("span", "covered");
  const line = (number, ...pieces) => {
    const made = make("div", "line");
    const text = make("span", "code");
    text.append(...pieces);
    made.append(make("span", "number", number), text);
    return made;
  };
  const before = data.source.before.split("\n");
  const after = data.source.after.split("\n");
  const here = before.length - 1;
  const rest = make("span", "own", after[0]);
  before.forEach((text, at) => {
    const own = make("span", "own", text || (at === here ? "" : " "));
    source.append(at === here ? line(data.source.first_line + at, own, hole, covered, rest) : line(data.source.first_line + at, own));
  });
  source.children[here].classList.add("here");
  after.slice(1).forEach((text, at) => source.append(line(data.source.first_line + here + 1 + at, make("span", "own", text || " "))));

  const showText = (text, { unsure = 0, isAnswer = false }) => {
    hole.textContent = text;
    hole.className = "hole" + (text ? "" : " empty") + (isAnswer && text ? " answer" : "");
    hole.style.setProperty("--u", unsure.toFixed(3));
    const size = isAnswer && text ? outcome.covered : 0;
    covered.textContent = after[0].slice(0, size);
    rest.textContent = after[0].slice(size);
    const box = source.getBoundingClientRect();
    const at = hole.getBoundingClientRect();
    if (at.right > box.right - 24 || at.left < box.left + 48) source.scrollLeft += at.left - box.left - box.width / 3;
  };

  // The canvas: its rows are built once and then only change.
  const ROW_NAMES = {
    slot: (row) => [`Slot of ${row.num_free}`, "from noise; ends at its fill token"],
    length: (row) => [`${plural(row.num_free, "token")}`, "from noise; exactly this long"],
    seed: (row) => ["Found text", `from “${visible(row.seed)}”, which stands elsewhere`],
  };
  const GIVEN_SHOWN = 4;
  const CELL_CHARACTERS = 10;
  let built = { canvas: null, rows: [] };

  const given = (ids, side) => {
    const cells = ids.slice(0, GIVEN_SHOWN).map((id) => {
      const cell = make("span", "cell given");
      cell.tabIndex = -1;
      cell.told = () => [parts(make("p"), code(spelled(id))), make("p", "", `Given: text ${side} the cursor. It is never changed.`)];
      cell.append(make("span", "seen"), make("span", "token", spelled(id)));
      return cell;
    });
    if (ids.length > GIVEN_SHOWN) cells.push(make("span", "more", `+ ${ids.length - GIVEN_SHOWN} more`));
    return cells;
  };
  const width = (canvas, index, at) => {
    let most = 2;
    for (const step of canvas.steps) {
      for (const row of step.rows.filter((row) => row.row === index)) {
        most = Math.max(most, spelled(row.best[at]).length, Math.ceil(spelled(row.seen[at]).length * 0.75));
      }
    }
    return Math.min(most, CELL_CHARACTERS);
  };
  const build = (number) => {
    const canvas = data.canvases[number];
    const into = byId("canvas");
    into.replaceChildren();
    into.classList.toggle("many", canvas.rows.length > 8);
    if (data.canvases.length > 1) {
      const why = canvas.num_written ? "continues after the text of the one before" : number ? "larger: nothing fitted before" : "the first";
      into.append(make("p", "canvas-note", `Canvas ${number + 1} of ${data.canvases.length}: ${why}.`));
    }
    const rows = canvas.rows.map((row, index) => {
      const element = make("div", "row");
      const [name, start] = ROW_NAMES[row.kind](row);
      const fate = make("span", "fate");
      const what = make("div", "what");
      what.append(make("b", "", name), make("span", "", start), fate);
      const cells = Array.from({ length: row.num_free }, (_, at) => {
        const cell = make("span", "cell");
        cell.tabIndex = -1;
        cell.style.width = `calc(${width(canvas, index, at)}ch + 8px)`;
        cell.style.fontSize = "13px";
        cell.append(make("span", "seen"), make("span", "token"));
        return cell;
      });
      const reads = make("p", "reads");
      const line = make("div", "cells");
      line.append(...given(row.opening, "before"), ...cells, ...given(row.head, "after"));
      const right = make("div");
      right.append(line, reads);
      element.append(what, right);
      into.append(element);
      return { element, fate, cells, reads };
    });
    const walked = into.querySelector(".cell");
    if (walked) walked.tabIndex = 0;
    built = { canvas: number, rows };
  };

  const fateOf = (canvas, step, index) => {
    // The step at which a row left the canvas, and why.
    for (let at = 0; at <= step; at += 1) {
      const look = canvas.steps[at].rows.find((row) => row.row === index);
      const isNext = at + 1 < canvas.steps.length && canvas.steps[at + 1].rows.some((row) => row.row === index);
      if (!look) return null;
      if (!isNext) return { at, settled: look.settled, isLast: at + 1 === canvas.steps.length };
    }
    return null;
  };

  const others = (shares) =>
    shares.map(([id, probability]) => {
      const row = make("div", "other");
      const bar = make("div", "bar");
      const filled = make("i");
      filled.style.width = `${probability * 100}%`;
      bar.append(filled);
      row.append(code(spelled(id)), bar, make("span", "", percent(probability)));
      return row;
    });

  const drawCell = (cell, look, at, isStart) => {
    const [seen, token] = cell.children;
    const isKept = look.accepted.length ? look.accepted[at] === 1 : null;
    const shown = isStart ? look.seen[at] : look.best[at];
    seen.textContent = isStart ? "" : spelled(look.seen[at]);
    token.textContent = spelled(shown);
    token.classList.toggle("mark", isMark(shown));
    const thrownBack = isStart ? undefined : look.corrected[at];
    cell.className = "cell" + (isStart ? " start" : isKept === null ? "" : isKept ? " accepted" : " renoised") + (thrownBack === undefined ? "" : " corrected");
    cell.style.setProperty("--u", isStart ? 0 : heat(look.entropy[at]));
    cell.told = () => {
      const lines = [make("p", "", `Position ${at + 1} of ${look.seen.length}, ${look.entropy[at].toFixed(2)} nats`)];
      lines.push(parts(make("p"), "It held ", code(spelled(look.seen[at]))));
      if (isStart) return [lines[1], make("p", "", "No step was made yet.")];
      const next = look.accepted.length
        ? parts(make("p"), isKept ? "Kept: " : "Replaced by noise: ", code(spelled(look.next[at])), " stands there next.")
        : make("p", "", "The last step: its tokens are the result.");
      if (thrownBack !== undefined) lines.push(parts(make("p"), "Corrected: ", code(spelled(thrownBack)), " was kept at an earlier step and replaced later."));
      return [...lines, ...others(look.others[at]), next];
    };
  };

  const drawRow = (canvas, step, index, isStart) => {
    const { element, fate, cells, reads } = built.rows[index];
    const end = fateOf(canvas, step, index);
    const at = end ? Math.min(step, end.at) : step;
    const look = canvas.steps[at].rows.find((row) => row.row === index);
    const isGone = Boolean(end) && at < step;
    element.classList.toggle("gone", isGone && !end.settled);
    fate.className = "fate";
    fate.textContent = "";
    if (!look) return;
    if (!isStart && end && (isGone || at === step)) {
      fate.classList.toggle("settled", end.settled);
      fate.textContent = end.settled ? `✓ settled at step ${end.at + 1}` : end.isLast ? "stayed to the end" : `✕ dropped after step ${end.at + 1}`;
    }
    cells.forEach((cell, position) => drawCell(cell, look, position, isStart));
    const sure = Math.exp(look.logprob);
    parts(reads, isStart ? "\u00a0" : look.text ? ["reads ", code(short(look.text)), `, ${percent(sure)} sure on average`] : "reads nothing that could be shown");
  };

  const draw = () => {
    const frame = frames[current];
    if (frame.canvas >= 0) {
      const canvas = data.canvases[frame.canvas];
      if (built.canvas !== frame.canvas) build(frame.canvas);
      canvas.rows.forEach((_, index) => drawRow(canvas, frame.step, index, frame.kind === "start"));
      const step = canvas.steps[frame.step];
      const surest = canvas.steps
        .slice(0, frame.step + 1)
        .flatMap(({ rows }, at) => rows.filter((row) => row.text && (at === frame.step || row.settled)))
        .sort((one, other) => other.logprob - one.logprob)[0];
      if (frame.kind === "step" && surest) showText(surest.text, { unsure: 1 - Math.exp(surest.logprob) });
      else if (frame.kind !== "answer") showText("", {});
      const of = data.canvases.length > 1 ? `, canvas ${frame.canvas + 1} of ${data.canvases.length}` : "";
      if (frame.kind === "start") parts(byId("now"), make("b", "", "Before the first step"), `${of}: ${plural(step.rows.length, "row")}`);
      if (frame.kind === "step") {
        parts(byId("now"), make("b", "", `Step ${frame.step + 1} of ${canvas.steps_limit}`), `${of}: temperature ${step.temperature.toFixed(2)}, ${ms(step.ms)}, ${plural(step.rows.length, "row")}`);
      }
    }
    if (frame.kind === "answer") {
      showText(outcome.text, { isAnswer: true });
      parts(byId("now"), make("b", "", "The answer"), outcome.text ? ": the best candidate" : ": nothing likely enough");
    }
    byId("slider").value = String(current);
    byId("slider").setAttribute("aria-valuetext", byId("now").textContent);
    [...byId("ticks").children].forEach((tick, at) => tick.classList.toggle("here", at === current));
    for (const [id, isOff] of [["first", current === 0], ["back", current === 0], ["on", current === frames.length - 1], ["last", current === frames.length - 1]]) {
      byId(id).style.opacity = isOff ? 0.4 : 1;
    }
    tell(told);
  };

  // The text of the causal mode; it is not animated.
  const drawPass = (pass, number, isLast, writing) => {
    const row = make("div", "row");
    const what = make("div", "what");
    const fate = make("span", "fate", pass.ended ? "✓ ended by itself" : isLast ? "given up here" : "");
    fate.classList.toggle("settled", pass.ended);
    what.append(make("b", "", `Pass ${number + 1}`), make("span", "", `${ms(pass.ms)}; ${plural(pass.tokens.length, "token")}`), fate);
    const line = make("div", "cells");
    if (!number) line.append(...given(writing.forced, "before"));
    pass.tokens.forEach((id, at) => {
      const hasAgreed = at < pass.num_agreed;
      const isEnd = pass.ended && at + 1 === pass.tokens.length;
      const share = (pass.others[at].find(([other]) => other === id) ?? [id, 0])[1];
      const cell = make("span", `cell ${hasAgreed ? "accepted" : "renoised"}`);
      cell.tabIndex = -1;
      cell.style.setProperty("--u", heat(pass.entropy[at]));
      const token = make("span", "token", isEnd ? "end" : spelled(id));
      token.classList.toggle("mark", isEnd || isMark(id));
      cell.append(make("span", "seen", percent(share)), token);
      const instead = at === pass.num_agreed && pass.draft !== null
        ? parts(make("p"), "The draft had ", code(spelled(pass.draft)), " here.")
        : make("p", "", hasAgreed ? "The draft had the same token." : "The draft had ended.");
      cell.told = () => [
        make("p", "", `${isEnd ? "Ends the text; " : ""}${pass.entropy[at].toFixed(2)} nats`),
        ...others(pass.others[at]),
        writing.num_drafted ? instead : make("p", "", "There was no draft."),
      ];
      line.append(cell);
    });
    const right = make("div");
    right.append(line);
    if (isLast) right.append(parts(make("p", "reads"), writing.text ? ["writes ", code(short(writing.text))] : "no candidate came of it: the text was not at its end"));
    row.append(what, right);
    return row;
  };
  for (const writing of data.writings) {
    byId("writing").hidden = !writing.passes.length;
    writing.passes.forEach((pass, at) => byId("passes").append(drawPass(pass, at, at + 1 === writing.passes.length, writing)));
  }
  const firstWritten = byId("passes").querySelector(".cell");
  if (firstWritten) firstWritten.tabIndex = 0;

  // Candidates and time.
  const SOURCES = { diffusion: "from the canvas", left_to_right: "written left to right", seed: "stands elsewhere in the text" };
  const WHY = {
    shown: "Shown",
    behind: "Less likely than the one shown",
    unlikely: "Below the threshold: not shown",
    syntax: "Would add syntax errors",
    unjudged: "Not judged",
  };
  const bar = (share, threshold = null) => {
    const made = make("div", "bar");
    const filled = make("i");
    filled.style.width = `${Math.min(1, Math.max(0, share)) * 100}%`;
    made.append(filled);
    if (threshold !== null) {
      const mark = make("u");
      mark.style.left = `${threshold * 100}%`;
      mark.title = `Threshold ${percent(threshold)}`;
      made.append(mark);
    }
    return made;
  };
  const CANDIDATES_SHOWN = 4;
  const further = make("ol");
  data.candidates.forEach((candidate, rank) => {
    const item = make("li", candidate.verdict);
    const isJudged = !["syntax", "unjudged"].includes(candidate.verdict);
    const text = make("div", "text");
    text.append(code(visible(candidate.text)), make("span", "score", isJudged ? percent(candidate.score) : "–"));
    const names = Object.entries(candidate.features);
    const why = parts(make(names.length ? "summary" : "div", "why"), make("b", "", WHY[candidate.verdict]), ` · ${SOURCES[candidate.source]}`);
    item.append(text, isJudged ? bar(candidate.score, data.threshold) : "");
    if (!names.length) {
      item.append(why);
    } else {
      const more = make("details");
      const table = make("table");
      names.forEach(([name, value]) => {
        const row = make("tr");
        row.append(make("td", "", name.replaceAll("_", " ")), make("td", "", value.toFixed(3)));
        table.append(row);
      });
      why.title = "What the score is made from";
      more.append(why, table);
      item.append(more);
    }
    (rank < CANDIDATES_SHOWN ? byId("candidates") : further).append(item);
  });
  if (further.childElementCount) {
    const more = make("details");
    more.append(make("summary", "", `${further.childElementCount} more`), further);
    const item = make("li");
    item.append(more);
    byId("candidates").append(item);
  }
  if (!data.candidates.length) byId("candidates").append(make("li", "why", "None."));
  byId("threshold").textContent = data.is_calibrated
    ? `The upright mark is the threshold, ${percent(data.threshold)}: below it nothing is shown. Open a line for what its score is made from.`
    : "This model has no calibration: scores put candidates in an order and are no probabilities.";

  const STAGES = { queue: "waiting", tokenize: "to tokens", encode: "reading the text", propose: "searching the text", denoise: "denoising", rank: "ranking", total: "in all" };
  const timings = Object.entries(data.timings).sort((one, other) => Object.keys(STAGES).indexOf(one[0]) - Object.keys(STAGES).indexOf(other[0]));
  for (const [stage, spent] of timings) {
    const isSum = stage === "total";
    byId("timings").append(make("dt", isSum ? "sum" : "", STAGES[stage] ?? stage), isSum ? make("div") : bar(spent / (data.timings.total || 1)), make("dd", isSum ? "sum" : "", ms(spent)));
  }
  byId("run").textContent = `Recording included. ${plural(data.num_prompt, "token")} of prompt, ${plural(outcome.forwards, "model pass")}${outcome.forwards === 1 ? "" : "es"} over canvases and candidates.`.replace("passses", "passes");
  byId("scale-end").textContent = `${UNSURE} nats and more`;
  byId("own").textContent = `Written by dgemma-lsp trace, ${model.version}. The page holds ${plural(before.length + after.length - 1, "line")} of your text and fetches nothing.`;

  // The other likely tokens of a position.
  const tip = byId("tip");
  let told = null;
  const tell = (cell) => {
    told = cell && cell.told && cell.isConnected ? cell : null;
    tip.hidden = !told;
    if (!told) return;
    tip.replaceChildren(...told.told());
    const box = told.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), document.documentElement.clientWidth - tip.offsetWidth - 8);
    const below = box.bottom + tip.offsetHeight + 12 < window.innerHeight || box.top < tip.offsetHeight + 12;
    tip.style.left = `${left + window.scrollX}px`;
    tip.style.top = `${(below ? box.bottom + 8 : box.top - tip.offsetHeight - 8) + window.scrollY}px`;
  };
  const cellOf = (event) => event.target.closest?.(".cell") ?? null;
  document.addEventListener("pointerover", (event) => tell(cellOf(event) ?? (document.activeElement.told ? document.activeElement : null)));
  document.addEventListener("focusin", (event) => tell(cellOf(event)));
  const walk = (cell, by) => {
    const cells = [...cell.closest("#canvas, #passes").querySelectorAll(".cell")];
    const next = cells[cells.indexOf(cell) + by];
    if (next) {
      cell.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
  };

  // Player.
  const FRAME_MS = 1100;
  let timer = null;
  const go = (to) => {
    current = Math.min(Math.max(0, to), frames.length - 1);
    history.replaceState(null, "", `#${current}`);
    draw();
  };
  const pause = () => {
    clearInterval(timer);
    timer = null;
    byId("play").setAttribute("aria-pressed", "false");
    byId("play").setAttribute("aria-label", "Play");
  };
  const play = () => {
    if (timer !== null) return pause();
    byId("play").setAttribute("aria-pressed", "true");
    byId("play").setAttribute("aria-label", "Pause");
    if (current === frames.length - 1) go(0);
    timer = setInterval(() => {
      go(current + 1);
      if (current === frames.length - 1) pause();
    }, FRAME_MS);
  };
  const moves = { first: () => 0, back: () => current - 1, on: () => current + 1, last: () => frames.length - 1 };
  for (const [id, to] of Object.entries(moves)) {
    byId(id).addEventListener("click", () => {
      pause();
      go(to());
    });
  }
  byId("play").addEventListener("click", play);
  const slider = byId("slider");
  slider.max = String(frames.length - 1);
  slider.addEventListener("input", () => {
    pause();
    go(Number(slider.value));
  });
  frames.forEach((frame) => byId("ticks").append(make("li", "", frame.kind === "start" ? "noise" : frame.kind === "step" ? String(frame.step + 1) : "answer")));
  const keys = { Home: moves.first, ArrowLeft: moves.back, ArrowRight: moves.on, End: moves.last };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const cell = cellOf(event);
    if (event.key === "Escape") return tell(null);
    if (event.shiftKey && cell && keys[event.key]) {
      event.preventDefault();
      walk(cell, event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0);
    } else if (!event.shiftKey && event.target !== slider && keys[event.key]) {
      event.preventDefault();
      pause();
      go(keys[event.key]());
    } else if (event.key === " " && !event.target.closest?.("button, summary")) {
      event.preventDefault();
      play();
    }
  });
  const wanted = Number.parseInt(location.hash.slice(1), 10);
  go(Number.isNaN(wanted) ? 0 : wanted);
})();
