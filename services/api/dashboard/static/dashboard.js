// What pages do beyond htmx, a module for each thing. Reading, enabling and sending again work without any of it.
import "./charts.js";
import "./copy.js";
import "./figures.js";
import "./form.js";
import "./live.js";
import "./times.js";
