// A window onto rows of which only those on the screen exist, however many there are and however high each is.
//
// What is shown is known by the row at the top and how far it is scrolled out (`top`, `offset`). The browser's own
// scrolling moves that: where the rows' real height fits into an element it is exact; beyond that (browsers end at
// some 17 to 33 million pixels) and with rows of different heights the bar stands for the position in proportion. A
// small movement is then taken as it is and a large one as a jump, and the bar is set right when it has come to rest.

const HIGHEST = 15_000_000; // pixels
const NEAR = 3; // screens: up to here a movement is taken as it is
const REST = 150; // milliseconds without movement
const AT_END = 2; // pixels from the end that count as at the end

export class Scroller {
  /**
   * `frame` is what scrolls. `draw(n, element)` fills a row and returns it; it makes one if there is no `element`.
   * `onMove()` is called when other rows are shown.
   */
  constructor(frame, { draw, onMove }) {
    this.frame = frame;
    this.draw = draw;
    this.onMove = onMove;
    this.total = 0;
    this.top = 0;
    this.offset = 0;
    this.end = 0; // behind the last row on the screen
    this.following = false; // stays at the end when rows are added
    this.held = false; // stays where it is, even if that happens to be the end
    this.moved = false; // by the reader, since it was drawn last
    this.uniform = true; // every row is as high as a line
    this.wide = true; // rows may be wider than the screen
    this.lineHeight = 20;
    this.rows = new Map();
    this.stale = new Set(); // rows to be drawn anew
    this.width = 0;
    this.canvasHeight = 0;
    this.barAt = 0;
    this.canvas = document.createElement("div");
    this.layer = document.createElement("div");
    this.list = document.createElement("div");
    this.canvas.className = "canvas";
    this.layer.className = "layer";
    this.list.className = "rows";
    this.layer.append(this.list);
    this.canvas.append(this.layer);
    frame.append(this.canvas);
    frame.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.resizing = new ResizeObserver(() => this.refresh());
    this.resizing.observe(frame);
  }

  close() {
    this.resizing.disconnect();
    cancelAnimationFrame(this.frameAsked);
    clearTimeout(this.resting);
    this.closed = true;
  }

  /** Whole lines that fit on the screen. */
  get screenful() {
    return Math.max(1, Math.floor(this.frame.clientHeight / this.lineHeight));
  }

  /** There are so many rows now; they may also be fewer. */
  setTotal(total) {
    if (total === this.total) return;
    this.total = total;
    if (this.top >= total) {
      this.top = Math.max(0, total - 1);
      this.offset = 0;
    }
    this.render();
  }

  /** Draw all rows anew: their content or their heights have changed. */
  refresh() {
    for (const n of this.rows.keys()) this.stale.add(n);
    this.render();
  }

  /** The same for rows from `first` on. */
  refreshFrom(first) {
    for (const n of this.rows.keys()) if (n >= first) this.stale.add(n);
    if (this.stale.size) this.render();
  }

  /** Show a row at the top of the screen, or `before` lines below it. */
  showAt(n, before = 0) {
    this.following = false;
    this.held = true;
    this.top = Math.max(0, Math.min(n, this.total - 1));
    this.offset = -before * this.lineHeight;
    this.settle = true;
    this.render();
  }

  /** Bring a row onto the screen if it is not there as a whole. */
  reveal(n) {
    if (n < this.top || (n === this.top && this.offset > 0) || n >= this.end - 1) {
      this.showAt(n, Math.floor(this.screenful / 3));
    }
  }

  showStart() {
    this.following = this.held = false;
    this.moved = true;
    this.top = this.offset = 0;
    this.settle = true;
    this.render();
  }

  showEnd() {
    this.following = true;
    this.held = false;
    this.settle = true;
    this.render();
  }

  /** Scroll by lines, down or up. */
  scrollLines(lines) {
    if (lines < 0) this.following = false;
    this.held = false;
    this.moved = true;
    this.offset += lines * this.lineHeight;
    this.settle = true;
    this.render();
  }

  /** Draw with the next frame, once however often it is asked for. */
  render() {
    if (this.closed || this.frameAsked) return;
    this.frameAsked = requestAnimationFrame(() => {
      this.frameAsked = 0;
      this.#renderNow();
    });
  }

  #renderNow() {
    const height = this.frame.clientHeight;
    if (!height) return;
    const before = [this.top, this.end];
    this.layer.style.height = `${height}px`;
    this.lineHeight = parseFloat(getComputedStyle(this.list).lineHeight) || this.lineHeight;
    if (this.following) this.#placeEnd(height);
    else this.#place(height);
    this.moved = false;
    this.list.style.transform = `translateY(${-this.offset}px)`;
    this.#setWidth();
    this.#setBar(height);
    if (before[0] !== this.top || before[1] !== this.end) this.onMove();
  }

  /** Lay out from the row at the top on. */
  #place(height) {
    // Every row is at least one line high, so these are enough, above for what is scrolled back and below for the rest.
    const above = Math.ceil(Math.max(0, -this.offset) / this.lineHeight);
    const below = Math.ceil((height + Math.max(0, this.offset)) / this.lineHeight) + 1;
    const first = Math.max(0, this.top - above);
    const heights = this.#have(first, Math.min(this.total, this.top + below));
    let y = this.offset;
    for (let n = first; n < this.top; n += 1) y += heights[n - first];
    y = Math.max(0, y);
    let left = heights.reduce((sum, one) => sum + one, 0) - y; // from the top of the screen to the last of these rows
    if (first + heights.length === this.total && left <= height + AT_END) {
      // Rows that have left or shrunk bring the end onto the screen too, but not the reader to the end.
      this.following = this.moved && !this.held;
      this.#placeEnd(height);
      return;
    }
    this.top = first;
    while (y >= heights[this.top - first] && this.top < this.total - 1) {
      y -= heights[this.top - first];
      this.top += 1;
    }
    this.offset = y;
    let end = this.top;
    for (left = -y; left < height && end - first < heights.length; end += 1) left += heights[end - first];
    this.#keep(this.top, end); // only what is on the screen stays
  }

  /** Lay out so that the last row stands at the bottom. */
  #placeEnd(height) {
    const first = Math.max(0, this.total - Math.ceil(height / this.lineHeight) - 1);
    const heights = this.#have(first, this.total);
    let sum = 0;
    let top = this.total;
    while (top > first && sum < height) {
      top -= 1;
      sum += heights[top - first];
    }
    this.top = top;
    this.offset = Math.max(0, sum - height);
    this.#keep(top, this.total);
  }

  /** Have rows `[first, end)` and no others in the document, in order; their heights. */
  #have(first, end) {
    this.#keep(first, end);
    let before = null;
    for (let n = first; n < end; n += 1) {
      let row = this.rows.get(n);
      if (!row || this.stale.has(n)) {
        const drawn = this.draw(n, row);
        if (!row) {
          row = drawn;
          this.rows.set(n, row);
          if (before) before.after(row);
          else this.list.prepend(row);
        }
      }
      before = row;
    }
    this.stale.clear();
    if (this.uniform) return Array(Math.max(0, end - first)).fill(this.lineHeight);
    const heights = [];
    for (let n = first; n < end; n += 1) heights.push(this.rows.get(n).getBoundingClientRect().height);
    return heights;
  }

  #keep(first, end) {
    this.end = end;
    for (const [n, row] of this.rows) {
      if (n >= first && n < end) continue;
      row.remove();
      this.rows.delete(n);
    }
  }

  /** Rows that are not wrapped scroll sideways, and as far when the longest of them is gone: a bar must not jump. */
  #setWidth() {
    if (!this.wide) {
      this.width = 0;
      this.canvas.style.minWidth = "";
    } else if (this.list.scrollWidth > this.width) {
      this.width = this.list.scrollWidth;
      this.canvas.style.minWidth = `${this.width}px`;
    }
  }

  // --- the bar -------------------------------------------------------------------

  get #exact() {
    return this.uniform && this.total * this.lineHeight <= HIGHEST;
  }

  /** How far the bar can go, in its own pixels. */
  #travel(height) {
    return Math.max(0, Math.min(this.total * this.lineHeight, HIGHEST) - height);
  }

  /** The position of the top as rows, and the one that is furthest down. */
  #position(height) {
    const row = this.rows.get(this.top);
    const rowHeight = this.uniform || !row ? this.lineHeight : row.getBoundingClientRect().height;
    return [this.top + this.offset / rowHeight, Math.max(0, this.total - height / this.lineHeight)];
  }

  #setBar(height) {
    const canvas = Math.max(height, Math.min(this.total * this.lineHeight, HIGHEST));
    this.canvas.style.height = `${canvas}px`;
    if (canvas < this.canvasHeight) this.barAt = Math.min(this.barAt, this.frame.scrollTop); // the browser's doing
    this.canvasHeight = canvas;
    if (this.#exact || this.settle || this.following) this.#setBarNow(height);
    else {
      clearTimeout(this.resting);
      this.resting = setTimeout(() => this.#setBarNow(this.frame.clientHeight), REST);
    }
    this.settle = false;
  }

  #setBarNow(height) {
    if (this.closed) return;
    const [position, furthest] = this.#position(height);
    const share = furthest > 0 ? Math.min(1, position / furthest) : 0;
    const travel = this.#travel(height);
    const goal = this.following ? travel : share * travel;
    if (Math.abs(this.frame.scrollTop - goal) >= 1) this.frame.scrollTop = goal;
    this.barAt = this.frame.scrollTop; // what the browser made of it
  }

  #scrolled() {
    const now = this.frame.scrollTop;
    const moved = now - this.barAt;
    if (Math.abs(moved) < 1) return; // our own doing
    const height = this.frame.clientHeight;
    const travel = this.#travel(height);
    this.barAt = now;
    this.following = this.held = false;
    this.moved = true;
    if (this.#exact) {
      this.top = Math.min(Math.floor(now / this.lineHeight), Math.max(0, this.total - 1));
      this.offset = now - this.top * this.lineHeight;
    } else if (now <= 0 && moved < -NEAR * height) {
      this.top = this.offset = 0;
    } else if (now >= travel - 1 && moved > NEAR * height) {
      this.following = true;
    } else if (Math.abs(moved) <= NEAR * height) {
      this.offset += moved;
      if (now <= 0 || now >= travel - 1) this.settle = true; // there is no more bar for the next movement
    } else {
      const position = (now / travel) * Math.max(0, this.total - height / this.lineHeight);
      this.top = Math.floor(position);
      this.offset = (position - this.top) * this.lineHeight;
    }
    this.render();
  }
}
